/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_NET_H
#define WISP_VMM_NET_H

/*
 * The private half of the network device: net.c is the device, net-tap.c moves frames,
 * net-announce.c says where the VM is now.
 */

#include <linux/virtio_net.h>

#include "vmm/dev/rxpool.h"
#include "vmm/dev/vhost.h"
#include "vmm/virtio/virtio.h"

enum { NET_RX, NET_TX, NET_CONTROL, NET_QUEUES };

#define NET_HEADER sizeof(struct virtio_net_hdr_v1)
#define NET_ETHERNET 14u
/* The largest frame: an IP packet of 64 KiB with header, VLAN tag and ours. */
#define NET_FRAME_MAX (65535u + NET_ETHERNET + 4 + NET_HEADER)

struct net {
	struct virtio virtio;
	int tap; /* owned */
	uint8_t mac[6];
	uint16_t mtu;	 /* 0: not told to the guest */
	uint16_t status; /* VIRTIO_NET_S_* */
	struct vhost vhost;
	bool vhost_required;

	struct loop_source *tap_source;
	bool watching; /* the tap, for frames */
	struct virtq_chain chain;
	struct rxpool rx;
	/* The end of a frame that found too few buffers, and how long the whole frame is. */
	uint8_t *overflow;
	size_t frame;

	struct loop_source *announce_timer;
	unsigned announcements; /* that are left to make */

	uint64_t rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped;
};

/*
 * Opens a tap by name, or checks and copies an open one, whose number stays open for a restart of
 * the program. Returns the fd, which the caller closes, or -errno.
 */
int net_tap_open(const char *name, struct error *err);
int net_tap_adopt(int fd, struct error *err);

/*
 * Where the tap is a macvtap frames for the guest come to it from now on: it hears what is for its
 * own MAC address alone. -EADDRINUSE: another machine has that of the guest. Nothing for other
 * taps.
 */
int net_tap_claim(const struct net *net, struct error *err);

/* Tells the tap what the guest can receive (features accepted by the driver). */
int net_tap_offload(struct net *net, struct error *err);

/* The user-space data path, between activate and deactivate (and around a pause). */
int net_tap_start(struct net *net, struct error *err);
void net_tap_stop(struct net *net);
void net_tap_kick(struct net *net, struct virtq *q);

/* Announcements: planned when a saved state was loaded, made while the VM runs. */
void net_announce_plan(struct net *net);
void net_announce_start(struct net *net);
void net_announce_stop(struct net *net);

#endif
