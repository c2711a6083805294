/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_SPEC_H
#define WISP_PART_SPEC_H

/*
 * From a cluster's environment and what a node granted to the description that vms_start() takes
 * (docs/design/vm-networks.md). Any thread; reads the topology of CPUs below sys and nothing else.
 */

#include <jansson.h>
#include <sched.h>

#include "image/image.h"
#include "part/setup.h"

struct error;

struct spec_host {
	cpu_set_t cpus;	     /* what the kernel lets the cluster have here */
	const char *sys;     /* "/sys" */
	const char *names;   /* addresses of name servers, "a,b", or NULL; for who leads out */
	const char *volumes; /* folder for volumes that live as long as their VM */
};

/*
 * The description of a VM, a new reference in *ret. Its disks say more than a VMM needs: what has
 * to be made (part/volume.h). -EOPNOTSUPP: the environment asks for what this Wisp cannot do yet.
 */
int spec_derive(const struct setup *setup, const struct setup_vm *vm, const struct image *image,
		const struct spec_host *host, json_t **ret, struct error *err);

/* Whether the derivation knows of a field of environments, by its first word. For tests. */
bool spec_knows(const char *field);

#endif
