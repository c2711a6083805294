/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_PIN_H
#define WISP_PART_PIN_H

/* Which CPUs the vCPUs of a VM are pinned to. Any thread. */

#include <sched.h>
#include <stdbool.h>

struct error;

struct pin_request {
	unsigned vcpus;
	bool cores;	   /* each vCPU has a core of its own, not only a hardware thread */
	cpu_set_t allowed; /* what it may run on */
	/*
	 * So many places are left to others: VMs that share CPUs do not all begin with the first.
	 * Those that are not there begin anew.
	 */
	unsigned skip;
	const char *sys; /* "/sys" */
};

/* vCPU i belongs on the i-th of the set. -E2BIG: there are fewer places than vCPUs. */
int pin_choose(const struct pin_request *request, cpu_set_t *ret, struct error *err);

#endif
