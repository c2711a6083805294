/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver of the network device and a busy wire: frames with any header and length to
 * send, receive buffers of any size, commands, frames that arrive in between. The tap is real,
 * in a network namespace of our own; without one nothing is tested (and it says so).
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 128
#define AREA (256u << 10)
#define QUEUE_SIZE 64
#define HEADER sizeof(struct virtio_net_hdr_v1)
#define MTU 9000

struct fuzz {
	struct guest guest;
	struct guest_device dev;
	struct device *device;
	struct input in;
	int wire;
	uint64_t area, heap;
	bool paused;
};

enum operation {
	OP_SEND,
	OP_RECEIVE,
	OP_WIRE,
	OP_COMMAND,
	OP_KICK,
	OP_RUN,
	OP_PAUSE,
	OP_START,
	OPERATIONS
};

/* Makes the tap in a new namespace, once; a socket that puts frames on its wire, or -1. */
static int make_wire(void)
{
	struct ifreq ifr = {.ifr_name = "fuzz", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int fd, wire;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return -1;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, 1))
		return -1;
	close(fd);
	wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	ifr.ifr_mtu = MTU;
	guest_require(wire >= 0 && !ioctl(wire, SIOCSIFMTU, &ifr));
	ifr.ifr_flags = IFF_UP;
	guest_require(!ioctl(wire, SIOCSIFFLAGS, &ifr));
	addr.sll_ifindex = (int)if_nametoindex("fuzz");
	addr.sll_protocol = 0; /* receives nothing */
	guest_require(!bind(wire, (struct sockaddr *)&addr, sizeof(addr)));
	return wire;
}

static void start(struct fuzz *f, uint64_t features)
{
	f->guest.next = f->heap;
	guest_start(&f->dev, features, QUEUE_SIZE);
}

static void add_pieces(struct fuzz *f, unsigned queue, bool write)
{
	struct guest_buf bufs[4];
	unsigned n = 1 + (input_u8(&f->in) & 3), flips = input_u8(&f->in);

	for (unsigned i = 0; i < n; i++) {
		uint32_t len = 1 + (uint32_t)input_number(&f->in, 1 + (flips >> 7)) % 40000;

		bufs[i] = (struct guest_buf){f->area + i * 40000, len, write};
		/* Sometimes the wrong direction. */
		if ((flips & 0x70) == 0x70 && i == n - 1)
			bufs[i].write = !write;
	}
	guest_add(&f->dev.queue[queue], bufs, n);
}

static void send_frame(struct fuzz *f)
{
	uint8_t *p = guest_at(&f->guest, f->area, 64);

	for (unsigned i = 0, n = input_u8(&f->in) & 63; i < n; i++)
		p[i] = input_u8(&f->in);
	add_pieces(f, 1, false);
}

static void wire_frame(struct fuzz *f)
{
	static const uint8_t frame[MTU + 14] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	size_t len = 14 + input_number(&f->in, 2) % MTU;

	for (unsigned i = 0, n = input_u8(&f->in) & 15; i <= n; i++)
		if (send(f->wire, frame, len, MSG_DONTWAIT) < 0)
			return; /* the queue is full */
}

static void command(struct fuzz *f)
{
	uint8_t *p = guest_at(&f->guest, f->area, 2);

	p[0] = input_u8(&f->in) & 7;
	p[1] = input_u8(&f->in) & 1;
	if (input_u8(&f->in) & 1) {
		add_pieces(f, 2, false);
	} else {
		struct guest_buf bufs[] = {{f->area, 2, false}, {f->area + 2, 1, true}};

		guest_add(&f->dev.queue[2], bufs, 2);
	}
}

static void operate(struct fuzz *f)
{
	switch (input_u8(&f->in) % OPERATIONS) {
	case OP_SEND:
		send_frame(f);
		break;
	case OP_RECEIVE:
		add_pieces(f, 0, true);
		break;
	case OP_WIRE:
		wire_frame(f);
		break;
	case OP_COMMAND:
		command(f);
		break;
	case OP_KICK:
		guest_kick_always(&f->dev.queue[input_u8(&f->in) % 3]);
		break;
	case OP_RUN:
		guest_run(&f->guest);
		break;
	case OP_PAUSE:
		if (f->paused)
			f->device->ops->resume(f->device);
		else
			f->device->ops->pause(f->device);
		f->paused = !f->paused;
		break;
	case OP_START:
		start(f, input_number(&f->in, 5));
		break;
	}
}

static void check_works(struct fuzz *f)
{
	struct guest_buf buf = {f->area, HEADER + 60, false};

	if (f->paused)
		f->device->ops->resume(f->device);
	start(f, ~0ULL);
	memset(guest_at(&f->guest, f->area, buf.len), 0, buf.len);
	guest_request(&f->dev.queue[1], &buf, 1);
	guest_require(!(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int wire = -2; /* the namespace lives as long as the process */
	struct fuzz f = {.in = {data, size, 0}};
	struct device_config cfg;
	struct error err;

	if (wire == -2) {
		wire = make_wire();
		if (wire < 0)
			fprintf(stderr, "skipped: cannot make a tap in a network namespace\n");
	}
	if (wire < 0)
		return 0;
	f.wire = wire;
	guest_create(&f.guest);
	f.guest.vm.log.level = -1;
	guest_require(!device_config_parse("net,tap=fuzz,vhost=off", &cfg, &err));
	guest_require(!cfg.desc->create(&f.guest.vm, &cfg, &f.device, &err));
	guest_probe(&f.guest, VIRTIO_ID_NET, 0, &f.dev);
	f.area = guest_alloc(&f.guest, AREA, 4096);
	f.heap = f.guest.next;
	start(&f, ~0ULL);
	for (unsigned i = 0; i < OPERATIONS_MAX && f.in.pos < f.in.size; i++)
		operate(&f);
	check_works(&f);
	guest_destroy(&f.guest);
	free(cfg.text);
	return 0;
}
