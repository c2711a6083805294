/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_VXLAN_H
#define WISP_NET_VXLAN_H

/*
 * A port of a bridge that leads to the bridges of other nodes (VXLAN, RFC 7348): frames travel in
 * UDP datagrams between the nodes' own addresses. There is no multicast: what goes to all goes to
 * each peer, and where a MAC address is is learned from what comes. Addresses are IPv4, in host
 * byte order. All return 0 or -errno with the reason.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;

#define VXLAN_PORT 4789 /* UDP; IANA's */

/*
 * Makes the device in the calling thread's network namespace and a port of the bridge. underlay is
 * a netlink socket of the namespace in which the datagrams travel, whose owner needs
 * CAP_NET_ADMIN there. local: the node's address.
 */
int vxlan_add(int underlay, const char *name, const char *bridge, uint32_t vni, uint32_t local,
	      struct error *err);

/* A node that gets what goes to all. Adding one that is there, or removing another, is fine. */
int vxlan_add_peer(const char *name, uint32_t peer, struct error *err);
int vxlan_remove_peer(const char *name, uint32_t peer, struct error *err);

/* A socket that tells what the device learns (CLOEXEC, non-blocking); the caller owns it. */
int vxlan_watch(struct error *err);

/*
 * Takes the next message: the node that was heard of, or 0 when it is about none. -EAGAIN: no more
 * now; other failures: the socket is of no use any more.
 */
int vxlan_heard(int watch, const char *name, uint32_t *ret);

#endif
