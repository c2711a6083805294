/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves Ethernet frames between a tap and the guest's buffers in place, with the virtio
 * header that both sides understand, so that segmentation and checksums pass through.
 *
 * Receiving stops watching the tap while the guest has no buffers and goes on when it adds
 * some; frames wait in the tap's queue meanwhile. What the tap does not take when the guest
 * sends is dropped, as by a network card: waiting would hold up all frames behind it.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "vmm/dev/iov.h"
#include "vmm/dev/net.h"
#include "vmm/vm.h"

/* Frames moved before other devices get their turn. */
#define BATCH 128

static int set_header_size(int fd, struct error *err)
{
	int size = NET_HEADER;

	if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return error_errno(err, -errno, "tap: cannot set the header size");
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return error_errno(err, -errno, "tap: cannot make it non-blocking");
	return 0;
}

int net_tap_open(const char *name, struct error *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	CLEANUP_CLOSE int fd = -1;
	int r;

	if (!*name || strlen(name) >= sizeof(ifr.ifr_name))
		return error_set(err, -EINVAL, "tap=%s: not a name of a network interface", name);
	/* TUNSETIFF would make one that nobody has set up. */
	if (!if_nametoindex(name))
		return error_set(err, -ENODEV,
				 "there is no tap %s: ip tuntap add dev %s mode tap user USER",
				 name, name);
	strcpy(ifr.ifr_name, name);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open /dev/net/tun");
	r = ioctl(fd, TUNSETIFF, &ifr);
	if (r < 0 && errno == EINVAL) { /* made with multi_queue? */
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
		r = ioctl(fd, TUNSETIFF, &ifr);
	}
	if (r < 0 && errno == EBUSY)
		return error_set(err, -EBUSY, "tap %s is used by another process", name);
	if (r < 0 && errno == EPERM)
		return error_set(err, -EPERM, "tap %s does not belong to this user", name);
	if (r < 0)
		return error_errno(err, -errno, "cannot use %s as a tap", name);
	r = set_header_size(fd, err);
	return r ? r : take_fd(&fd);
}

int net_tap_adopt(int fd, struct error *err)
{
	struct ifreq ifr;
	int r;

	if (ioctl(fd, TUNGETIFF, &ifr) < 0)
		return error_errno(err, -errno, "fd=%d is not an open tap", fd);
	if ((ifr.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) !=
	    (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
		return error_set(err, -EINVAL,
				 "fd=%d: tap %.16s must be opened with IFF_TAP, IFF_NO_PI and "
				 "IFF_VNET_HDR",
				 fd, ifr.ifr_name);
	r = set_header_size(fd, err);
	if (r)
		return r;
	/* The device has a copy: the number stays open for the next start, after a reboot. */
	r = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r < 0)
		return error_errno(err, -errno, "fd=%d", fd);
	return r;
}

/* All taps of the driver tun are of one device (Linux, include/uapi/linux/major.h, miscdevice.h).
 */
static bool is_macvtap(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev != makedev(10, 200);
}

int net_tap_claim(const struct net *net, struct error *err)
{
	struct ifreq ifr = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};

	if (!is_macvtap(net->tap))
		return 0;
	memcpy(ifr.ifr_hwaddr.sa_data, net->mac, sizeof(net->mac));
	if (ioctl(net->tap, SIOCSIFHWADDR, &ifr) < 0)
		return error_errno(err, -errno,
				   "%s: the macvtap cannot have the MAC address "
				   "%02x:%02x:%02x:%02x:%02x:%02x",
				   net->virtio.device.id, net->mac[0], net->mac[1], net->mac[2],
				   net->mac[3], net->mac[4], net->mac[5]);
	return 0;
}

int net_tap_offload(struct net *net, struct error *err)
{
	const struct virtio *dev = &net->virtio;
	unsigned long flags = 0;

	if (virtio_has(dev, VIRTIO_NET_F_GUEST_CSUM))
		flags |= TUN_F_CSUM;
	if (virtio_has(dev, VIRTIO_NET_F_GUEST_TSO4))
		flags |= TUN_F_TSO4;
	if (virtio_has(dev, VIRTIO_NET_F_GUEST_TSO6))
		flags |= TUN_F_TSO6;
	if (virtio_has(dev, VIRTIO_NET_F_GUEST_ECN) && flags & (TUN_F_TSO4 | TUN_F_TSO6))
		flags |= TUN_F_TSO_ECN;
	/* The kernel wants checksums with segmentation, as the specification does (5.1.3.1). */
	if (!(flags & TUN_F_CSUM))
		flags = 0;
	if (ioctl(net->tap, TUNSETOFFLOAD, flags) < 0)
		return error_errno(err, -errno, "%s: cannot set the tap's offloads",
				   dev->device.id);
	return 0;
}

static void watch(struct net *net, bool on)
{
	if (net->watching != on && net->tap_source)
		loop_modify_fd(net->tap_source, on ? EPOLLIN : 0);
	net->watching = on;
}

static bool mergeable(const struct net *net)
{
	return virtio_has(&net->virtio, VIRTIO_NET_F_MRG_RXBUF);
}

/* Takes buffers for a frame of len bytes (any length: 0). False: the device is broken. */
static bool fill(struct net *net, size_t len)
{
	unsigned nbufs = mergeable(net) ? RXPOOL_BUFS : 1;

	if (!rxpool_fill(&net->rx, &net->chain, nbufs, len ? len : NET_FRAME_MAX, NET_HEADER))
		return true;
	watch(net, false);
	return false;
}

/* Waits for the guest's buffers. True when there are some now. */
static bool starved(struct net *net)
{
	if (virtq_enable_kicks(net->rx.q)) {
		virtq_disable_kicks(net->rx.q);
		return true;
	}
	watch(net, false);
	return false;
}

/* Hands the frame of len bytes at the start of the pool to the guest. */
static void deliver(struct net *net, size_t len)
{
	uint32_t written[RXPOOL_BUFS];
	uint16_t n = 0;
	uint8_t count[2];

	net->rx_frames++;
	net->rx_bytes += len - NET_HEADER;
	while (len) {
		written[n] = len < net->rx.buf[n].bytes ? (uint32_t)len : net->rx.buf[n].bytes;
		len -= written[n++];
	}
	count[0] = (uint8_t)n;
	count[1] = (uint8_t)(n >> 8);
	iov_write(net->rx.iov, net->rx.niov, offsetof(struct virtio_net_hdr_v1, num_buffers), count,
		  sizeof(count));
	rxpool_push(&net->rx, written, n);
}

/* Goes on with a frame whose end found no buffers. False: it still waits. */
static bool place_rest(struct net *net)
{
	size_t had = net->rx.bytes, frame = net->frame, now;

	if (!fill(net, frame))
		return false;
	/* The overflow holds what comes behind the buffers there were. */
	now = net->rx.bytes < frame ? net->rx.bytes : frame;
	iov_write(net->rx.iov, net->rx.niov, had, net->overflow, now - had);
	if (now < frame) {
		memmove(net->overflow, net->overflow + (now - had), frame - now);
		if (!rxpool_full(&net->rx) && net->rx.nbufs < net->rx.q->size)
			return starved(net);
		net->rx_dropped++; /* all buffers the guest can have do not hold it */
	} else {
		deliver(net, frame);
	}
	net->frame = 0;
	return true;
}

static void tap_gone(struct net *net)
{
	log_error(&net->virtio.device.vm->log, net->virtio.device.id,
		  "the tap was removed: no frames are received any more");
	loop_remove(&net->tap_source);
}

/* Reads one frame into the pool's buffers. False: no more now. */
static bool receive(struct net *net)
{
	struct rxpool *rx = &net->rx;
	ssize_t n;

	if (net->frame)
		return place_rest(net);
	if (!fill(net, 0))
		return false;
	if (!rx->nbufs)
		return starved(net);
	rx->iov[rx->niov] = (struct iovec){net->overflow, NET_FRAME_MAX};
	n = readv(net->tap, rx->iov, (int)rx->niov + 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < (ssize_t)NET_HEADER) {
		tap_gone(net);
		return false;
	}
	if ((size_t)n <= rx->bytes) {
		deliver(net, (size_t)n);
	} else if (mergeable(net) && (size_t)n < rx->bytes + NET_FRAME_MAX) {
		net->frame = (size_t)n;
		return place_rest(net);
	} else {
		net->rx_dropped++; /* longer than the buffers of this driver */
	}
	return true;
}

static void on_tap(void *arg, uint32_t events)
{
	struct net *net = arg;
	unsigned budget = BATCH;

	if (events & (EPOLLERR | EPOLLHUP)) {
		tap_gone(net);
		return;
	}
	while (budget && receive(net))
		budget--;
	/* The tap may have no more to wake us for the frame that waits, nor does the guest. */
	if (!budget && net->frame)
		virtq_kick(net->rx.q);
	virtq_notify(net->rx.q);
}

static void transmit(struct net *net, const struct virtq_chain *c)
{
	ssize_t n = -1;

	if (c->read_bytes >= NET_HEADER + NET_ETHERNET && c->read_bytes <= NET_FRAME_MAX)
		n = writev(net->tap, c->iov, c->nread);
	if (n < 0) {
		net->tx_dropped++;
		return;
	}
	net->tx_frames++;
	net->tx_bytes += (uint64_t)n - NET_HEADER;
}

static void transmit_all(struct net *net, struct virtq *q)
{
	unsigned budget = BATCH;

	do {
		virtq_disable_kicks(q);
		for (; budget && virtq_pop(q, &net->chain) > 0; budget--) {
			transmit(net, &net->chain);
			virtq_push(q, &net->chain, 0);
		}
	} while (budget && virtq_enable_kicks(q));
	if (!budget)
		eventfd_write(q->kick_fd, 1); /* the rest after other devices had a turn */
	virtq_notify(q);
}

void net_tap_kick(struct net *net, struct virtq *q)
{
	if (q->index == NET_TX) {
		transmit_all(net, q);
		return;
	}
	if (!net->tap_source)
		return;
	virtq_disable_kicks(q);
	watch(net, true);
	on_tap(net, EPOLLIN);
}

int net_tap_start(struct net *net, struct error *err)
{
	int r;

	if (!net->overflow)
		net->overflow =
			malloc(NET_FRAME_MAX); /* untouched, hence free, in the normal case */
	if (!net->overflow)
		return error_errno(err, -ENOMEM, "%s", net->virtio.device.id);
	net->rx.q = &net->virtio.queue[NET_RX];
	virtq_disable_kicks(net->rx.q);
	r = loop_add_fd(net->virtio.device.vm->loop, net->tap, EPOLLIN, on_tap, net,
			&net->tap_source);
	if (r)
		return error_errno(err, r, "%s: cannot watch the tap", net->virtio.device.id);
	net->watching = true;
	return 0;
}

void net_tap_stop(struct net *net)
{
	loop_remove(&net->tap_source);
	net->watching = false;
	if (net->frame) { /* its buffers go back to the guest's queue: it is lost, once */
		net->rx_dropped++;
		net->frame = 0;
	}
	if (net->rx.q)
		rxpool_release(&net->rx);
}
