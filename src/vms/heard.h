/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_HEARD_H
#define WISP_VMS_HEARD_H

/*
 * Nodes that are heard of, by frames that anybody in the nodes' network can send: which of them are
 * believed to be of ours. Addresses in host byte order. Plain data; zeroed to begin with.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEARD_MAX 128  /* nodes that nobody named; what is left is for those that are told */
#define HEARD_GONE 256 /* nodes that were unlinked */

struct heard {
	uint32_t gone[HEARD_GONE]; /* the oldest first */
	size_t ngone;
	size_t believed;
};

/* Whether that can be the address of a node at all. */
bool heard_is_node(uint32_t address);

/* A node that is not linked sends. Whether it is to be: then it counts as believed. */
bool heard_believe(struct heard *h, uint32_t node);

/* A node was unlinked: it is not believed until it is linked by name. */
void heard_unlink(struct heard *h, uint32_t node);
void heard_link(struct heard *h, uint32_t node);

#endif
