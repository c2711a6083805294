/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_OUTSIDE_H
#define WISP_NET_OUTSIDE_H

/*
 * The way out of a cluster's network (docs/design/clusters.md, The way out): a pair of devices
 * between its namespace and the node's, addresses are translated in both. For fabric.c alone: needs
 * root and a single thread. Addresses are IPv4 in host byte order.
 */

#include <stdint.h>

struct error;

#define OUTSIDE_DEVICE "out" /* its end in the cluster's network */

struct outside {
	uint32_t gateway; /* an address of the cluster's network */
	unsigned prefix;
	uint32_t near, far; /* addresses of the pair: the node's and the cluster's */
	char device[16];    /* the node's end */
};

/*
 * In the node's namespace: makes the pair to the one that the descriptor is of, and sees to the
 * node's rules; the rest of *way. -EPERM: the node forwards nothing; -ENOENT: there is no nft.
 */
int outside_leave(int space, struct outside *way, struct error *err);

/* In the cluster's: the bridge is the gateway of what comes from its ports, but for that to nodes.
 */
int outside_enter(const struct outside *way, const char *bridge, const char *nodes,
		  struct error *err);

#endif
