/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_PLACE_H
#define WISP_VMS_PLACE_H

/*
 * Where on the machine the wisp-vmm of a VM runs: "cgroup" (path of its control group, made when it
 * is not there), "affinity" (CPUs) and "mems" (NUMA nodes) of its description, each or none. For
 * process_start().
 */

#include <jansson.h>
#include <sched.h>
#include <stdbool.h>

struct error;

#define PLACE_NODES 1024

struct place {
	int procs; /* cgroup.procs of the control group, or -1 */
	bool has_cpus, has_mems;
	cpu_set_t cpus;
	unsigned long mems[PLACE_NODES / (8 * sizeof(unsigned long))];
};

int place_open(const json_t *config, struct place *ret, struct error *err);
void place_close(struct place *place);

/* For in_child of struct process; its argument is the place. */
int place_enter(void *place);

#endif
