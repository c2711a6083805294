/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CPU_H
#define WISP_VMM_CPU_H

/* The state a vCPU is born with: CPUID, MSRs, local APIC, registers. */

#include <stdint.h>

struct cpuid;
struct error;
struct vm;

/* Sets up all vCPUs of the VM; the first starts at entry (64-bit boot protocol). */
int cpu_setup(struct vm *vm, uint64_t entry, struct error *err);

/* The CPUID that a VM like this one could have here at most: with the model "host". */
int cpu_offered(struct vm *vm, struct cpuid *ret, struct error *err);

#endif
