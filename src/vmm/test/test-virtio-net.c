/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network device's user-space path, on a real tap in a network namespace of our own; the
 * host's end is a packet socket. Skipped where a namespace or /dev/net/tun cannot be had.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define ETHERTYPE 0x88b5 /* for local experiments: not to be taken for the kernel's own frames */
#define HEADER sizeof(struct virtio_net_hdr_v1)
#define MTU 16000
#define MERGEABLE (1ULL << VIRTIO_NET_F_MRG_RXBUF)

struct fixture {
	struct guest guest;
	struct guest_device dev;
	struct guest_queue *rx, *tx;
	struct device *device;
	struct device_config cfg;
	int wire;	  /* packet socket on the tap's interface */
	uint64_t buf[64]; /* receive buffers, by descriptor */
	uint32_t buf_len;
	uint64_t out; /* for sending */
	uint8_t frame[MTU + 14];
};

static const char *why_not;

static int open_tap(int flags, const char *name)
{
	struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | flags)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
	strcpy(ifr.ifr_name, name);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Brings the interface up with a large MTU; returns a packet socket on it. */
static int open_wire(const char *name, uint16_t type)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(type));
	struct ifreq ifr = {.ifr_mtu = MTU};
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(type)};

	guest_require(fd >= 0);
	strcpy(ifr.ifr_name, name);
	guest_require(!ioctl(fd, SIOCSIFMTU, &ifr));
	ifr.ifr_flags = IFF_UP;
	guest_require(!ioctl(fd, SIOCSIFFLAGS, &ifr));
	addr.sll_ifindex = (int)if_nametoindex(name);
	guest_require(!bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

static int create(struct fixture *f, const char *options, struct error *err)
{
	char text[256];

	free(f->cfg.text);
	snprintf(text, sizeof(text), "net,vhost=off%s", options);
	assert_int_equal(device_config_parse(text, &f->cfg, err), 0);
	return f->cfg.desc->create(&f->guest.vm, &f->cfg, &f->device, err);
}

/* A frame whose bytes follow from its number. */
static void make_frame(uint8_t *frame, unsigned len, unsigned number)
{
	memset(frame, 0xff, 12);
	frame[12] = ETHERTYPE >> 8;
	frame[13] = ETHERTYPE & 0xff;
	for (unsigned i = 14; i < len; i++)
		frame[i] = (uint8_t)(number * 7 + i + (i >> 8));
}

static void add_buffers(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t gpa = guest_alloc(&f->guest, f->buf_len, 1);
		struct guest_buf buf = {gpa, f->buf_len, true};

		f->buf[guest_add(f->rx, &buf, 1)] = gpa;
	}
	guest_kick(f->rx);
}

static struct fixture *begin(const char *options, uint64_t features, uint32_t buf_len,
			     unsigned buffers)
{
	struct fixture *f;
	struct error err;

	if (why_not) {
		print_message("%s\n", why_not);
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	guest_create(&f->guest);
	if (create(f, options, &err))
		fail_msg("%s", err.text);
	f->wire = open_wire("tap0", ETHERTYPE);
	guest_probe(&f->guest, VIRTIO_ID_NET, 0, &f->dev);
	guest_start(&f->dev, features, 64);
	f->rx = &f->dev.queue[0];
	f->tx = &f->dev.queue[1];
	f->buf_len = buf_len;
	f->out = guest_alloc(&f->guest, HEADER + 65536 + 64, 1);
	add_buffers(f, buffers);
	return f;
}

/* With a persistent tap, by name. */
static struct fixture *begin_named(uint64_t features, uint32_t buf_len, unsigned buffers)
{
	int fd = why_not ? -1 : open_tap(IFF_NO_PI | IFF_VNET_HDR, "tap0");

	if (fd >= 0) {
		guest_require(!ioctl(fd, TUNSETPERSIST, 1));
		close(fd);
	}
	return begin(",tap=tap0,mac=02:00:00:00:00:07,mtu=9000", features, buf_len, buffers);
}

static void end(struct fixture *f)
{
	int fd;

	guest_destroy(&f->guest);
	fd = open_tap(IFF_NO_PI | IFF_VNET_HDR, "tap0");
	guest_require(fd >= 0 && !ioctl(fd, TUNSETPERSIST, 0));
	close(fd);
	close(f->wire);
	free(f->cfg.text);
	free(f);
}

static void wire_send(struct fixture *f, unsigned len, unsigned number)
{
	make_frame(f->frame, len, number);
	assert_int_equal(send(f->wire, f->frame, len, 0), len);
}

/* Receives one frame of ours from the device and compares it; returns its buffers. */
static unsigned expect_frame(struct fixture *f, unsigned len, unsigned number)
{
	static uint8_t got[HEADER + 65536];
	struct virtq_used used;
	unsigned n, total = 0;

	do {
		uint8_t *first;

		assert_true(guest_wait(f->rx, &used));
		first = guest_at(&f->guest, f->buf[used.head], used.written);
		n = first[10] | (unsigned)first[11] << 8;
		total = 0;
		for (unsigned i = 0; i < n; i++) {
			if (i)
				assert_true(guest_used(f->rx, &used)); /* all come at once */
			memcpy(got + total, guest_at(&f->guest, f->buf[used.head], used.written),
			       used.written);
			total += used.written;
		}
	} while (got[HEADER + 12] != ETHERTYPE >> 8 || got[HEADER + 13] != (ETHERTYPE & 0xff));
	make_frame(f->frame, len, number);
	assert_int_equal(total, HEADER + len);
	assert_memory_equal(got + HEADER, f->frame, len);
	return n;
}

static void device_send(struct fixture *f, unsigned len)
{
	struct guest_buf bufs[] = {{f->out, HEADER, false}, {f->out + HEADER, len, false}};

	assert_int_equal(guest_request(f->tx, bufs, 2), 0);
}

static void test_receive(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 32);

	if (!f) {
		skip();
		return;
	}
	wire_send(f, 60, 1);
	assert_int_equal(expect_frame(f, 60, 1), 1);
	wire_send(f, 10000, 2);
	assert_int_equal(expect_frame(f, 10000, 2), (10000 + HEADER + 1525) / 1526);
	for (unsigned i = 0; i < 10; i++)
		wire_send(f, 100 + i, i);
	for (unsigned i = 0; i < 10; i++)
		expect_frame(f, 100 + i, i);
	assert_true(guest_interrupts(&f->dev, 1) >= 1);
	end(f);
}

/* Frames wait in the tap while the guest has no buffers, and none is lost. */
static void test_starved(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 0);
	uint64_t wakeups;

	if (!f) {
		skip();
		return;
	}
	for (unsigned i = 0; i < 20; i++)
		wire_send(f, 500, i);
	guest_run(&f->guest);
	wakeups = loop_wakeups(f->guest.vm.loop);
	for (unsigned i = 0; i < 5; i++)
		loop_run_once(f->guest.vm.loop, 0);
	assert_int_equal(loop_wakeups(f->guest.vm.loop), wakeups + 5); /* five time-outs */
	for (unsigned i = 0; i < 20; i++) {
		add_buffers(f, 2); /* the kernel's own frames may want one */
		expect_frame(f, 500, i);
	}
	end(f);
}

/* A frame larger than the buffers there are is completed when more come. */
static void test_completed_later(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 0);
	struct virtq_used used;

	if (!f) {
		skip();
		return;
	}
	wire_send(f, 10000, 3);
	wire_send(f, 2000, 4);
	for (unsigned i = 0; i < 6; i++) {
		add_buffers(f, 1);
		guest_run(&f->guest);
	}
	add_buffers(f, 10);
	expect_frame(f, 10000, 3);
	expect_frame(f, 2000, 4);
	/* Stopped with half a frame: its buffers are the guest's again. */
	while (guest_used(f->rx, &used))
		;
	guest_start(&f->dev, ~0ULL, 64);
	wire_send(f, 10000, 5);
	add_buffers(f, 2);
	guest_run(&f->guest);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	f->device->ops->resume(f->device);
	add_buffers(f, 8);
	wire_send(f, 1000, 6);
	expect_frame(f, 1000, 6);
	end(f);
}

static void test_not_mergeable(void **state)
{
	struct fixture *f = begin_named(~MERGEABLE, 2048, 20);

	if (!f) {
		skip();
		return;
	}
	wire_send(f, 5000, 1); /* does not fit a buffer: dropped */
	wire_send(f, 2048 - HEADER, 2);
	wire_send(f, 60, 3);
	assert_int_equal(expect_frame(f, 2048 - HEADER, 2), 1);
	assert_int_equal(expect_frame(f, 60, 3), 1);
	end(f);
}

static void test_send(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 8);
	uint8_t got[MTU + 14];

	if (!f) {
		skip();
		return;
	}
	for (unsigned i = 0; i < 300; i++) {
		unsigned len = 60 + i * 13;

		memset(guest_at(&f->guest, f->out, HEADER), 0, HEADER);
		make_frame(guest_at(&f->guest, f->out + HEADER, len), len, i);
		device_send(f, len);
		assert_int_equal(recv(f->wire, got, sizeof(got), MSG_DONTWAIT), len);
		assert_memory_equal(got, guest_at(&f->guest, f->out + HEADER, len), len);
	}
	end(f);
}

/* Frames and headers that no driver sends: dropped, the device goes on. */
static void test_send_bad(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 8);
	uint8_t got[100];
	uint8_t *out;

	if (!f) {
		skip();
		return;
	}
	out = guest_at(&f->guest, f->out, HEADER);
	memset(out, 0, HEADER);
	device_send(f, 13);
	device_send(f, 65536 + 64);
	memset(out, 0xff, HEADER); /* unknown segmentation, checksum outside the frame */
	make_frame(out + HEADER, 60, 1);
	device_send(f, 60);
	assert_int_equal(recv(f->wire, got, sizeof(got), MSG_DONTWAIT), -1);
	memset(out, 0, HEADER);
	device_send(f, 60);
	assert_int_equal(recv(f->wire, got, sizeof(got), MSG_DONTWAIT), 60);
	assert_int_equal(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	end(f);
}

static void test_bad_buffers(void **state)
{
	struct fixture *f = begin_named(~0ULL, HEADER - 1, 1);

	if (!f) {
		skip();
		return;
	}
	wire_send(f, 60, 1);
	guest_run(&f->guest);
	assert_true(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
	guest_start(&f->dev, ~0ULL, 64);
	f->buf_len = 2000;
	add_buffers(f, 20);
	wire_send(f, 60, 2);
	guest_run(&f->guest);
	assert_int_equal(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	end(f);
}

static uint8_t command(struct fixture *f, uint8_t class, uint8_t cmd)
{
	struct guest_buf bufs[] = {{f->out, 2, false}, {f->out + 2, 1, true}};
	uint8_t *out = guest_at(&f->guest, f->out, 3);

	out[0] = class;
	out[1] = cmd;
	out[2] = 0xee;
	guest_request(&f->dev.queue[2], bufs, 2);
	return out[2];
}

static uint64_t config(struct fixture *f, size_t offset, unsigned len)
{
	return guest_read(&f->guest, f->dev.config + offset, len);
}

/* Configuration; a restored device asks the guest to announce itself. */
static void test_config(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 8);
	struct guest_buf no_answer = {0, 2, false};
	struct error err;

	if (!f) {
		skip();
		return;
	}
	assert_int_equal(config(f, 0, 4), 0x00000002);
	assert_int_equal(config(f, 4, 2), 0x0700);
	assert_int_equal(config(f, offsetof(struct virtio_net_config, mtu), 2), 9000);
	assert_int_equal(config(f, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0), VIRTIO_NET_ERR);

	guest_interrupts(&f->dev, 0);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	assert_int_equal(f->device->ops->restored(f->device, &err), 0);
	f->device->ops->resume(f->device);
	assert_int_equal(config(f, 6, 2), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(guest_interrupts(&f->dev, 0), 1);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK),
			 VIRTIO_NET_OK);
	assert_int_equal(config(f, 6, 2), VIRTIO_NET_S_LINK_UP);
	wire_send(f, 60, 1);
	expect_frame(f, 60, 1);

	no_answer.gpa = f->out;
	guest_add(&f->dev.queue[2], &no_answer, 1);
	guest_kick(&f->dev.queue[2]);
	guest_run(&f->guest);
	assert_true(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
	end(f);
}

/* Frames of another type that came to the wire since. */
static unsigned count_announcements(struct fixture *f, int wire, unsigned ms)
{
	static const uint8_t request[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4,
					  0,	3,    2, 0, 0, 0, 0, 7}; /* of the MAC address */
	uint64_t end = io_now_ns() + ms * 1000000ull;
	uint8_t frame[128];
	unsigned n = 0;

	while (io_now_ns() < end)
		loop_run_once(f->guest.vm.loop, 10);
	for (; recv(wire, frame, sizeof(frame), MSG_DONTWAIT) > 0; n++) {
		assert_int_equal(frame[0], 0xff);
		assert_memory_equal(frame + 6, request + 10, 6);
		assert_memory_equal(frame + 12, request, sizeof(request));
	}
	return n;
}

/* Where a VM goes on it says so, more than once, and not while it is paused. */
static void test_announce(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 8);
	struct error err;
	int wire;

	if (!f) {
		skip();
		return;
	}
	wire = open_wire("tap0", ETH_P_RARP);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	f->device->ops->resume(f->device);
	assert_int_equal(count_announcements(f, wire, 100), 0);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	assert_int_equal(f->device->ops->restored(f->device, &err), 0);
	assert_int_equal(count_announcements(f, wire, 100), 0);
	f->device->ops->resume(f->device);
	assert_in_range(count_announcements(f, wire, 30), 1, 2);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	assert_int_equal(count_announcements(f, wire, 100), 0);
	f->device->ops->resume(f->device);
	assert_in_range(count_announcements(f, wire, 1500), 3, 4);
	assert_int_equal(count_announcements(f, wire, 500), 0);
	close(wire);
	end(f);
}

/* A queue full of commands ends the turn, as a guest may go on adding some: another follows. */
static void test_full_of_commands(void **state)
{
	struct fixture *f = begin_named(~0ULL, 1526, 8);
	struct guest_buf bufs[2];
	struct guest_queue *q;
	struct virtq_used used;
	struct virtio *dev;

	if (!f) {
		skip();
		return;
	}
	q = &f->dev.queue[2];
	dev = container_of(f->device, struct virtio, device);
	bufs[0] = (struct guest_buf){f->out, 2, false};
	bufs[1] = (struct guest_buf){f->out + 2, 1, true};
	guest_add(q, bufs, 2);
	for (unsigned i = 1; i < q->size; i++)
		guest_publish(q, 0); /* the same again */
	guest_kick(q);
	guest_run(&f->guest);
	for (unsigned i = 0; i < q->size; i++)
		assert_true(guest_used(q, &used));
	assert_false(guest_used(q, &used));
	assert_int_equal(dev->queue[2].kicks, 2);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0), VIRTIO_NET_ERR);
	assert_int_equal(dev->queue[2].kicks, 3);
	end(f);
}

/* A tap given by number is there again when the program starts anew at a guest's reboot. */
static void test_number_stays(void **state)
{
	struct fixture f = {0};
	char options[64];
	struct error err;
	struct ifreq ifr;
	int fd;

	if (why_not) {
		print_message("%s\n", why_not);
		skip();
		return;
	}
	fd = open_tap(IFF_NO_PI | IFF_VNET_HDR, "tap2");
	assert_true(fd >= 0 && !fcntl(fd, F_SETFD, 0)); /* as it is inherited */
	snprintf(options, sizeof(options), ",fd=%d", fd);
	guest_create(&f.guest);
	assert_int_equal(create(&f, options, &err), 0);
	guest_destroy(&f.guest);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	assert_int_equal(ioctl(fd, TUNGETIFF, &ifr), 0);
	assert_string_equal(ifr.ifr_name, "tap2");
	guest_create(&f.guest);
	assert_int_equal(create(&f, options, &err), 0);
	guest_destroy(&f.guest);
	close(fd);
	free(f.cfg.text);
}

static void refused(struct fixture *f, const char *options, const char *reason)
{
	struct error err = {0};

	assert_true(create(f, options, &err) < 0);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
}

static void test_refused(void **state)
{
	struct fixture f = {0};
	char options[64];
	int fd;

	if (why_not) {
		print_message("%s\n", why_not);
		skip();
		return;
	}
	guest_create(&f.guest);
	refused(&f, "", "one of tap=NAME and fd=NUMBER");
	refused(&f, ",tap=a,fd=1", "one of tap=NAME and fd=NUMBER");
	refused(&f, ",tap=none", "there is no tap none");
	refused(&f, ",tap=lo", "cannot use lo as a tap");
	refused(&f, ",fd=0", "not an open tap");
	refused(&f, ",fd=99", "not an open tap");
	refused(&f, ",tap=a,mac=01:00:00:00:00:00", "01:00");
	refused(&f, ",tap=a,mtu=10", "mtu");
	fd = open_tap(IFF_NO_PI, "tap1");
	snprintf(options, sizeof(options), ",fd=%d", fd);
	refused(&f, options, "tap1 must be opened with");
	refused(&f, ",tap=tap1", "used by another process");
	close(fd);
	guest_destroy(&f.guest);
	free(f.cfg.text);
}

static void enter_namespace(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		why_not = "cannot make a network namespace";
		return;
	}
	fd = open_tap(IFF_NO_PI | IFF_VNET_HDR, "probe");
	if (fd < 0)
		why_not = "cannot make a tap (/dev/net/tun)";
	else
		close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_starved),
		cmocka_unit_test(test_completed_later),
		cmocka_unit_test(test_not_mergeable),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_send_bad),
		cmocka_unit_test(test_bad_buffers),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_announce),
		cmocka_unit_test(test_full_of_commands),
		cmocka_unit_test(test_number_stays),
		cmocka_unit_test(test_refused),
	};

	enter_namespace();
	return cmocka_run_group_tests_name("virtio-net", tests, NULL, NULL);
}
