/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_FEATURES_H
#define WISP_VMM_FEATURES_H

/*
 * CPU features by name, as /proc/cpuinfo of Linux has them; those without a name are
 * "cpuid.0xLEAF.SUBLEAF.REG.BIT". What a guest was given must be there where it continues.
 */

#include <stdint.h>

struct cpuid;
struct error;

/* Calls fn for each feature that cpuid has. */
typedef void feature_fn(void *arg, const char *name);
void features_each(const struct cpuid *cpuid, feature_fn *fn, void *arg);

/*
 * 0 when a guest with the CPUID saved can run on a machine that can offer here: same vendor and no
 * feature missing. Else -EOPNOTSUPP with all that is missing.
 */
int features_check(const struct cpuid *saved, const struct cpuid *here, struct error *err);

#endif
