/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that goes on at another place tells the switches on the way: each frame from its MAC
 * address shows where that is now. The guest does so too when its driver can and it gets to it
 * (VIRTIO_NET_F_GUEST_ANNOUNCE); until then frames for it would go to the old place.
 */

#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "vmm/dev/net.h"
#include "vmm/vm.h"

#define MS 1000000ULL

/* More than once: a frame may be lost, and a path may take a moment to come up. */
static const uint16_t gap_ms[] = {50, 100, 200, 400};
#define COUNT (ARRAY_SIZE(gap_ms) + 1)

/* A request of RARP (RFC 903) for our own address: heard by all, answered by nobody. */
static void send_frame(struct net *net)
{
	uint8_t frame[NET_HEADER + 60] = {0}, *p = frame + NET_HEADER;
	static const uint8_t kind[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};

	memset(p, 0xff, 6);
	memcpy(p + 6, net->mac, 6);
	memcpy(p + 12, kind, sizeof(kind));
	memcpy(p + 22, net->mac, 6); /* sender, then target; their IP addresses stay 0 */
	memcpy(p + 32, net->mac, 6);
	if (write(net->tap, frame, sizeof(frame)) < 0)
		net->tx_dropped++;
}

static void on_timer(void *arg)
{
	struct net *net = arg;

	send_frame(net);
	if (--net->announcements)
		loop_set_timer(net->announce_timer, gap_ms[COUNT - 1 - net->announcements] * MS, 0);
}

void net_announce_plan(struct net *net)
{
	if (net->announce_timer ||
	    !loop_add_timer(net->virtio.device.vm->loop, on_timer, net, &net->announce_timer))
		net->announcements = COUNT;
}

void net_announce_start(struct net *net)
{
	if (net->announcements)
		loop_set_timer(net->announce_timer, 1, 0);
}

void net_announce_stop(struct net *net)
{
	if (net->announcements)
		loop_set_timer(net->announce_timer, 0, 0);
}
