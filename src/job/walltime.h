/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_WALLTIME_H
#define WISP_JOB_WALLTIME_H

/* The walltime of a job, which a restart from a checkpoint does not begin anew. Any thread. */

#include <jansson.h>
#include <stdint.h>

struct error;

/*
 * *ret: milliseconds that are left of the walltime of an environment (closed) when so many were
 * used; UINT64_MAX: there is no limit. -ETIME: less than a second is left.
 */
int walltime_left(const json_t *environment, uint64_t used_ms, uint64_t *ret, struct error *err);

#endif
