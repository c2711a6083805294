/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_PLAN_H
#define WISP_JOB_PLAN_H

/*
 * Which node each VM of a cluster goes to, from what the environment asks for and the nodes say of
 * themselves. Pure: the same input, the same plan. Whether a node really has it, its daemon says
 * when it is asked to reserve.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct plan_node {
	const char *name;
	bool out;	     /* takes no VM: it was not named for that */
	const char *gone;    /* why nothing is known of it; NULL: facts has what it says */
	const json_t *facts; /* docs/formats/node.md */
};

/*
 * VMs 0 to vms - 1 in blocks over all nodes: neighbours come to one node, no node gets more than
 * it has to, and none more than vms-per-node. ret[k] is the place in the list of VM k; it has room
 * for vms. -ENOSPC: they do not fit, and err says how many would, and what is wrong with the first
 * nodes.
 */
int plan_make(const json_t *environment, const struct plan_node *nodes, size_t n, size_t vms,
	      uint32_t *ret, struct error *err);

/*
 * VMs that the node takes, at most vms-per-node; 0 and why: a text (cut to size) about the node,
 * "draining: a fan is loud".
 */
unsigned plan_capacity(const json_t *environment, const struct plan_node *node, char *why,
		       size_t size);

#endif
