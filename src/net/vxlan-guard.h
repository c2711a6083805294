/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_VXLAN_GUARD_H
#define WISP_NET_VXLAN_GUARD_H

/*
 * Whose datagrams a cluster's VXLAN takes on this node (docs/design/clusters.md, A cluster's
 * network): those of the cluster's nodes, and of no process. For fabric.c alone: needs root and a
 * single thread, and works in the network namespace where the datagrams travel. The rules are found
 * by the path of the network. Addresses are IPv4 in host byte order. All return 0 or -errno with
 * the reason.
 */

#include <stddef.h>
#include <stdint.h>

struct error;

/* From here on datagrams with the number come from nowhere. -ENOENT: there is no nft. */
int vxlan_guard_begin(const char *path, uint32_t vni, struct error *err);

/* They come from these too, or no more. Adding one that is there, or removing another, is fine. */
int vxlan_guard_add(const char *path, const uint32_t *nodes, size_t n, struct error *err);
int vxlan_guard_remove(const char *path, const uint32_t *nodes, size_t n, struct error *err);

/* Nothing of it is left, if there was anything. */
void vxlan_guard_end(const char *path);

#endif
