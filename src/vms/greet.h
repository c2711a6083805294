/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_GREET_H
#define WISP_VMS_GREET_H

/*
 * Waits for a VM's agent, tells all VMs of the network each other's names and writes the VM's
 * RECORD_READY. Blocks: the keeper forks a process for it. Returns its exit code.
 */

#include <stdbool.h>
#include <stdint.h>

struct greeting {
	const char *network_dir; /* of the keeper, which knows the VMs */
	const char *dir;	 /* of the VM */
	const char *name;
	const char *vms;     /* folder of the VMs' directories */
	uint64_t started_ns; /* io_now_ns() before the VMM's exec */
	long long console;   /* size of the console's file then */
	bool silent;	     /* it runs already, and prints nothing when it is loaded */
};

int greet(const struct greeting *greeting);

#endif
