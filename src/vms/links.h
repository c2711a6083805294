/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_LINKS_H
#define WISP_VMS_LINKS_H

/*
 * The other nodes of a network, from its keeper's point of view: those it was told of, and those
 * it heard of through them. Addresses in host byte order, as texts in JSON. On the keeper's loop.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct links;
struct net_keeper;

#define LINKS_MAX 256 /* nodes */

/* vni: see links_vni(). changed is called after any change. */
int links_create(struct net_keeper *keeper, uint32_t vni, void (*changed)(void *arg), void *arg,
		 struct links **ret);
void links_destroy(struct links *links);

/* The VXLAN number of a network: 24 bits of its identity, not 0. */
uint32_t links_vni(uint64_t id);

/* {"local": ADDRESS, "peers": [ADDRESS...]}: links, or adds to the links; "added" are the new. */
int links_add(struct links *links, const json_t *request, json_t *answer, struct error *err);

/*
 * {"peers": [...]}: without these; {}: without any. They do not come back by what they send, unless
 * the link is undone: then it is as if it had never been.
 */
int links_drop(struct links *links, const json_t *request, bool undone, struct error *err);

bool links_any(const struct links *links);

/* [local, peer...], a new reference; empty when not linked. */
json_t *links_nodes(const struct links *links);

#endif
