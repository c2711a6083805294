/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_GROUP_H
#define WISP_PART_GROUP_H

/* The control group of a cluster on a node, from inside. Any thread. */

#include <sched.h>

struct error;

/* Has this process, and so what it starts, in GROUP/keeper, unless it is in GROUP already. NULL: 0.
 */
int group_join(const char *group, struct error *err);

/* The CPUs that the kernel lets the group have; without one those of this process. */
int group_cpus(const char *group, cpu_set_t *ret, struct error *err);

#endif
