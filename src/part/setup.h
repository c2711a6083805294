/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_SETUP_H
#define WISP_PART_SETUP_H

/* What a part is for (docs/formats/node.md, The part): `setup`, checked once. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "vms/subnet.h"

struct error;

#define SETUP_VMS_MAX 1024 /* of a cluster on a node */

struct setup_vm {
	const char *name, *address;
	const json_t *grant;
	json_t *json, *kept; /* what these point into */
	bool gone;	     /* it was here, and may come back */
};

struct setup {
	json_t *json; /* all of it; the rest points into it */
	const char *cluster, *name, *node;
	const json_t *environment; /* closed */
	struct setup_vm *vms;	   /* with room for SETUP_VMS_MAX: they stay where they are */
	size_t nvms;
	const char *network, *network_id;
	struct subnet subnet;
	bool made;	    /* root made the network, and its keeper runs */
	const char *cgroup; /* the cluster's group, delegated to this user; NULL: none */
	const char *socket; /* of the daemon, for others than the part; NULL: none */
};

/* A new reference of message is kept. -EINVAL names the member that is wrong. */
int setup_parse(const json_t *message, struct setup *ret, struct error *err);
void setup_done(struct setup *s);

/*
 * The VMs are those of message ("vms", "grants") from now on: those that are new come last, those
 * that are not there are gone. -EINVAL, -E2BIG: nothing has changed.
 */
int setup_change(struct setup *s, const json_t *message, struct error *err);

/* NULL: there is no VM of that name here. */
const struct setup_vm *setup_find(const struct setup *s, const char *name);

#endif
