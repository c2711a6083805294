/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_FABRIC_H
#define WISP_NET_FABRIC_H

/*
 * One node's part of a virtual cluster's network, made by root for a user (docs/design/clusters.md,
 * A cluster's network): a network namespace with a bridge, a VXLAN device to the cluster's other
 * nodes, and taps that belong to the user. The user's processes can open these taps and nothing
 * else in there. It stays until fabric_destroy(), whoever dies; a name of a file in a folder is
 * all that is needed to find it.
 *
 * Needs root; the calling process must be single-threaded. Addresses are IPv4 in host byte order.
 * All return 0 or -errno with the reason.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct lan;

/*
 * Makes it at path, a file that is not there yet in a folder of root's. local: the node's address
 * in the calling thread's network namespace, where the datagrams to the other nodes travel; 0: a
 * cluster of this node alone. -EEXIST: path is there, or the VXLAN number is in use on this node;
 * -ENOENT: there is no nft, which a cluster of several nodes takes (net/vxlan-guard.h).
 */
int fabric_create(const char *path, uint32_t vni, uint32_t local, struct error *err);

/* Other nodes of the cluster. Adding one that is there, or removing another, is fine. */
int fabric_add_nodes(const char *path, const uint32_t *nodes, size_t n, struct error *err);
int fabric_remove_nodes(const char *path, const uint32_t *nodes, size_t n, struct error *err);

/*
 * Its VMs reach what this node reaches: by gateway, an address of the network that the bridge gets
 * on each node, and NAT (net/outside.h). Once, before the VMs. -EPERM: this node forwards nothing.
 */
int fabric_lead_out(const char *path, uint32_t gateway, unsigned prefix, struct error *err);

/*
 * A tap that uid may open with fabric_open_tap() from inside, and a reboot of its VM survives. One
 * that is there stays as it is.
 */
int fabric_add_tap(const char *path, const char *name, uid_t uid, struct error *err);
int fabric_remove_tap(const char *path, const char *name, struct error *err);

/*
 * Its VMs are on the node's own network instead (net/lan.h): once, before the VMs, of a network
 * without other nodes; then macvtaps, which root opens from inside (lan_open_tap()). One that is
 * there stays as it is. Of *lan the parent and the VLAN have to be set.
 */
int fabric_join_lan(const char *path, struct lan *lan, struct error *err);
int fabric_add_macvtap(const char *path, struct lan *lan, const char *name, struct error *err);

/* Moves the calling process into it. */
int fabric_enter(const char *path, struct error *err);

/*
 * For the user, inside: the descriptor of one of the user's taps (CLOEXEC, non-blocking, 12-byte
 * virtio headers), which the caller owns. -EPERM: none of the user's.
 */
int fabric_open_tap(const char *name, int *ret, struct error *err);

/*
 * Removes all of it. Processes that are still inside keep the namespace, without devices that
 * lead anywhere. Fine when there is none.
 */
int fabric_destroy(const char *path, struct error *err);

#endif
