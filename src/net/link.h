/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_LINK_H
#define WISP_NET_LINK_H

/*
 * Network devices of the calling thread's network namespace. They send nothing by
 * themselves: no IPv6 addresses, no multicast. All return 0 or -errno with the reason.
 */

#include <stdint.h>
#include <sys/types.h>

struct error;

/*
 * A bridge with an address ("10.77.0.1/24"; NULL: without one), up. Needs CAP_NET_ADMIN in the
 * namespace.
 */
int link_add_bridge(const char *name, const char *address, struct error *err);

/*
 * A tap device as a port of the bridge, up, with 12-byte virtio headers (IFF_VNET_HDR). It
 * lives as long as its descriptor *ret, which the caller owns (CLOEXEC).
 */
int link_add_tap(const char *name, const char *bridge, int *ret, struct error *err);

/*
 * The same, down and no port yet, that stays without a descriptor; uid alone may open it with
 * link_open_tap(), also without CAP_NET_ADMIN.
 */
int link_make_tap(const char *name, uid_t uid, struct error *err);

/* Opens a tap that link_make_tap() made, as link_add_tap() does. -EPERM: there is none of ours. */
int link_open_tap(const char *name, int *ret, struct error *err);

/*
 * Two devices that are the ends of one cable, down: the other one with the name there in another
 * network namespace (a descriptor of it). -EEXIST: one of the names is taken. Who removes one
 * removes both.
 */
int link_add_pair(const char *name, const char *there, int space, struct error *err);

/* "10.77.0.1/24"; and the MAC address, of a device that is down or a bridge. */
int link_set_address(const char *name, const char *address, struct error *err);
int link_set_mac(const char *name, const uint8_t mac[6], struct error *err);

/* Removes a device. */
int link_remove(const char *name, struct error *err);

/* Makes an existing device a port of the bridge, up. */
int link_join(const char *name, const char *bridge, struct error *err);

/* An existing device, on which IPv6 gets no address and so sends nothing. */
int link_silence(const char *name, struct error *err);

/* Brings an existing device up. */
int link_up(const char *name, struct error *err);

#endif
