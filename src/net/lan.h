/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_LAN_H
#define WISP_NET_LAN_H

/*
 * Virtual machines on the node's own network by macvtap devices (docs/design/clusters.md, On the
 * node's network). The devices live in the cluster's network namespace, so they end with it; root
 * makes and opens them, and who has a descriptor of one needs no rights. What can fail returns 0 or
 * -errno with the reason.
 */

struct error;

struct lan {
	const char *parent; /* interface of the node */
	unsigned vlan; /* 1 to 4094; 0: frames have no tag, and are heard by all on the parent */
	/* lan_begin()'s */
	int node;
	unsigned index;
};

/* In the node's namespace, before the others: finds the parent. -ENODEV: it is not there. */
int lan_begin(struct lan *lan, struct error *err);
void lan_done(struct lan *lan);

/*
 * In the cluster's: the device of its VLAN, or nothing for none. -EBUSY: another cluster of this
 * node has that VLAN, or somebody else; -ENETDOWN: the parent is down.
 */
int lan_join(const struct lan *lan, struct error *err);

/* There too: a macvtap, up, which hears what goes to all of the network. */
int lan_add_tap(const struct lan *lan, const char *name, struct error *err);

/* And: removes all of them, also while they are open. */
int lan_leave(struct error *err);

/*
 * And, as root: a descriptor (CLOEXEC, non-blocking) of one, the caller's, that gets no frames
 * before lan_tap_attach(). Of all its descriptors one at most may be attached.
 */
int lan_open_tap(const char *name, int *ret, struct error *err);

/* Anywhere, with a descriptor. -EINVAL: it is not of the tap with that name. */
int lan_tap_check(int tap, const char *name, struct error *err);

/* It gets frames from now on; what came before is dropped. */
void lan_tap_attach(int tap);

/*
 * It gets none any more, and has no machine's MAC address: frames for that one go where it is now.
 */
void lan_tap_rest(int tap);

#endif
