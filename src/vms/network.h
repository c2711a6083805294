/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_NETWORK_H
#define WISP_VMS_NETWORK_H

/*
 * The keeper's side of a network of VMs: starts and reaps their wisp-vmm, gives them
 * addresses and records how they ended. Requests: docs/design/vm-networks.md.
 */

#include <stdbool.h>

#include "net/keeper.h"
#include "vms/subnet.h"

struct network;

struct network_config {
	const char *name;
	const char *dir; /* the keeper's state directory */
	const char *vms; /* folder of the VMs' state directories */
	struct subnet subnet;
	uint64_t id;	    /* random: no two networks have the same */
	bool ordinary_user; /* who is root in the keeper's user namespace alone, or nowhere */
	bool stays;	    /* until it is stopped, also without VMs */
};

extern const struct net_hooks network_hooks; /* its arg is a struct network */

/* config stays the caller's and lives longer. */
int network_create(const struct network_config *config, struct network **ret);
void network_destroy(struct network *network);

/* "0123456789abcdef"; returns buf. */
char *network_format_id(uint64_t id, char buf[17]);

#endif
