/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device's user-space path: a driver that speaks the packet protocol on one side,
 * real UNIX sockets on the other.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define CID 42
#define HEADER sizeof(struct virtio_vsock_hdr)
#define DEVICE_ALLOC (256u << 10) /* credit the device gives for each connection */
#define BUF_SIZE 4096u
#define BUFS 64u

struct packet {
	struct virtio_vsock_hdr hdr;
	uint8_t data[BUF_SIZE];
};

struct fixture {
	struct guest guest;
	struct guest_device dev;
	struct device *device;
	struct device_config cfg;
	struct guest_queue *rx, *tx;
	char dir[32], path[64];
	uint64_t buf[256];		 /* receive buffers, by descriptor */
	uint64_t out;			 /* for sending */
	uint32_t guest_alloc, guest_fwd; /* in the next packets */
};

static void *at(struct fixture *f, uint64_t gpa)
{
	return guest_at(&f->guest, gpa, 1);
}

static void add_buffers(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct guest_buf buf = {guest_alloc(&f->guest, BUF_SIZE, 1), BUF_SIZE, true};

		f->buf[guest_add(f->rx, &buf, 1)] = buf.gpa;
	}
	guest_kick(f->rx);
}

static int create(struct fixture *f, const char *options, struct error *err)
{
	char text[256];

	free(f->cfg.text);
	snprintf(text, sizeof(text), "vsock%s", options);
	assert_int_equal(device_config_parse(text, &f->cfg, err), 0);
	return f->cfg.desc->create(&f->guest.vm, &f->cfg, &f->device, err);
}

static void start(struct fixture *f, unsigned buffers)
{
	guest_start(&f->dev, ~0ULL, 0);
	f->rx = &f->dev.queue[0];
	f->tx = &f->dev.queue[1];
	add_buffers(f, buffers);
}

static struct fixture *begin_unstarted(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err;
	char options[128];

	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/vsock", f->dir);
	snprintf(options, sizeof(options), ",cid=42,path=%s", f->path);
	guest_create(&f->guest);
	if (create(f, options, &err))
		fail_msg("%s", err.text);
	guest_probe(&f->guest, VIRTIO_ID_VSOCK, 0, &f->dev);
	f->out = guest_alloc(&f->guest, HEADER + DEVICE_ALLOC + 4096, 4096);
	f->guest_alloc = 64 << 10;
	return f;
}

static struct fixture *begin(void)
{
	struct fixture *f = begin_unstarted();

	start(f, BUFS);
	return f;
}

static void end(struct fixture *f)
{
	guest_destroy(&f->guest);
	assert_int_equal(access(f->path, F_OK), -1); /* the socket went with the device */
	assert_int_equal(rmdir(f->dir), 0);
	free(f->cfg.text);
	free(f);
}

/* What the guest sends */

static void send_from(struct fixture *f, uint16_t op, uint32_t guest_port, uint32_t host_port,
		      uint32_t flags, uint32_t len)
{
	struct virtio_vsock_hdr hdr = {
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = guest_port,
		.dst_port = host_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = f->guest_alloc,
		.fwd_cnt = f->guest_fwd,
	};
	struct guest_buf bufs[] = {{f->out, HEADER, false}, {f->out + HEADER, len, false}};

	memcpy(at(f, f->out), &hdr, HEADER);
	guest_request(f->tx, bufs, len ? 2 : 1);
}

static void op(struct fixture *f, uint16_t code, uint32_t guest_port, uint32_t host_port)
{
	send_from(f, code, guest_port, host_port, 0, 0);
}

static uint8_t pattern(uint32_t i)
{
	return (uint8_t)(i * 31 + (i >> 8));
}

static void send_data(struct fixture *f, uint32_t guest_port, uint32_t host_port, uint32_t first,
		      uint32_t len)
{
	uint8_t *data = at(f, f->out + HEADER);

	for (uint32_t i = 0; i < len; i++)
		data[i] = pattern(first + i);
	send_from(f, VIRTIO_VSOCK_OP_RW, guest_port, host_port, 0, len);
}

/* What the guest gets */

/* The next packet; its buffer is not given back (add_buffers() does). False after a while. */
static bool next_packet(struct fixture *f, struct packet *p)
{
	struct virtq_used used;

	for (unsigned i = 0; !guest_used(f->rx, &used); i++) {
		if (i == 5)
			return false;
		loop_run_once(f->guest.vm.loop, 10);
	}
	assert_true(used.written >= HEADER && used.written <= BUF_SIZE);
	memcpy(p, at(f, f->buf[used.head]), used.written);
	assert_int_equal(p->hdr.src_cid, 2);
	assert_int_equal(p->hdr.dst_cid, CID);
	assert_int_equal(p->hdr.type, VIRTIO_VSOCK_TYPE_STREAM);
	assert_int_equal(p->hdr.len, used.written - HEADER);
	return true;
}

static struct packet expect(struct fixture *f, uint16_t code)
{
	struct packet p;

	for (unsigned i = 0; !next_packet(f, &p); i++) /* 10 s: machines may be busy */
		if (i == 200)
			fail_msg("no packet; expected operation %u", code);
	assert_int_equal(p.hdr.op, code);
	return p;
}

static void expect_nothing(struct fixture *f)
{
	struct packet p;

	if (next_packet(f, &p))
		fail_msg("unexpected operation %u", p.hdr.op);
}

/* Host side */

static int dial(struct fixture *f)
{
	int fd = io_unix_connect(f->path, NULL);
	struct timeval wait = {.tv_sec = 10};

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void expect_line(struct fixture *f, int fd, const char *start_of_line)
{
	char line[80];
	size_t n = 0;

	guest_run(&f->guest);
	do
		assert_int_equal(recv(fd, line + n, 1, 0), 1);
	while (line[n++] != '\n');
	line[n] = 0;
	if (strncmp(line, start_of_line, strlen(start_of_line)))
		fail_msg("\"%s\"", line);
}

static void expect_end(struct fixture *f, int fd)
{
	char byte;

	guest_run(&f->guest);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
}

/* A connection from the host to guest port 1024; its host port. */
static uint32_t open_from_host(struct fixture *f, int *fd)
{
	struct packet p;

	*fd = dial(f);
	say(*fd, "CONNECT 1024\n");
	p = expect(f, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(p.hdr.dst_port, 1024);
	assert_int_equal(p.hdr.buf_alloc, DEVICE_ALLOC);
	op(f, VIRTIO_VSOCK_OP_RESPONSE, 1024, p.hdr.src_port);
	expect_line(f, *fd, "OK ");
	return p.hdr.src_port;
}

static int listen_at(struct fixture *f, unsigned port, char *path, size_t size)
{
	int fd;

	snprintf(path, size, "%s_%u", f->path, port);
	fd = io_unix_listen(path, NULL);
	assert_true(fd >= 0);
	return fd;
}

/* A connection from guest port 5000 to host port 77; the host's end. */
static int open_from_guest(struct fixture *f)
{
	char path[80];
	int listener = listen_at(f, 77, path, sizeof(path)), fd;
	struct timeval wait = {.tv_sec = 10};

	op(f, VIRTIO_VSOCK_OP_REQUEST, 5000, 77);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	close(listener);
	unlink(path);
	return fd;
}

static void test_host_initiated(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	struct stat st;
	char buf[16];
	uint32_t port;
	int fd;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	port = open_from_host(f, &fd);
	say(fd, "hello");
	p = expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.hdr.src_port, port);
	assert_int_equal(p.hdr.len, 5);
	assert_memory_equal(p.data, "hello", 5);
	memcpy(at(f, f->out + HEADER), "world!", 6);
	send_from(f, VIRTIO_VSOCK_OP_RW, 1024, port, 0, 6);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 6);
	assert_memory_equal(buf, "world!", 6);
	close(fd);
	p = expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(p.hdr.flags, 3);
	op(f, VIRTIO_VSOCK_OP_RST, 1024, port);
	expect_nothing(f);
	end(f);
}

/* Data right behind the request, and the request in pieces. */
static void test_early_data(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	int fd = dial(f);

	say(fd, "CONN");
	guest_run(&f->guest);
	say(fd, "ECT 7\nearly");
	p = expect(f, VIRTIO_VSOCK_OP_REQUEST);
	expect_nothing(f);
	op(f, VIRTIO_VSOCK_OP_RESPONSE, 7, p.hdr.src_port);
	p = expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.hdr.len, 5);
	assert_memory_equal(p.data, "early", 5);
	expect_line(f, fd, "OK 1073741824\n");
	close(fd);
	end(f);
}

static void test_host_refused(void **state)
{
	static const char *const bad[] = {
		"connect 1\n",	 "CONNECT -1\n", "CONNECT 4294967296\n",
		"CONNECT 12 \n", "\n",		 "CONNECT 1111111111111111"};
	struct fixture *f = begin_unstarted();
	struct packet p;
	int fd = dial(f);

	say(fd, "CONNECT 1024\n");
	expect_line(f, fd, "ERR the guest has no vsock driver running\n");
	expect_end(f, fd);
	close(fd);
	start(f, BUFS);
	fd = dial(f);
	say(fd, "CONNECT 9\n");
	p = expect(f, VIRTIO_VSOCK_OP_REQUEST);
	op(f, VIRTIO_VSOCK_OP_RST, 9, p.hdr.src_port);
	expect_line(f, fd, "ERR the guest refused the connection\n");
	expect_end(f, fd);
	close(fd);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fd = dial(f);
		say(fd, bad[i]);
		expect_line(f, fd, "ERR the request is ");
		close(fd);
	}
	/* The client leaves before the guest answers. */
	fd = dial(f);
	say(fd, "CONNECT 9\n");
	p = expect(f, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
	expect(f, VIRTIO_VSOCK_OP_RST);
	expect_nothing(f);
	end(f);
}

static void test_guest_initiated(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	char buf[16];
	int fd = open_from_guest(f);

	send_data(f, 5000, 77, 0, 10);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 10);
	say(fd, "answer");
	p = expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.hdr.dst_port, 5000);
	assert_memory_equal(p.data, "answer", 6);
	/* Close by the guest: a reset is its answer. */
	send_from(f, VIRTIO_VSOCK_OP_SHUTDOWN, 5000, 77, 3, 0);
	expect(f, VIRTIO_VSOCK_OP_RST);
	expect_end(f, fd);
	close(fd);
	/* Nobody listens there. */
	op(f, VIRTIO_VSOCK_OP_REQUEST, 5000, 78);
	p = expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(p.hdr.src_port, 78);
	assert_int_equal(p.hdr.dst_port, 5000);
	/* The program comes back at the same place. */
	fd = open_from_guest(f);
	send_data(f, 5000, 77, 0, 1);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 1);
	close(fd);
	end(f);
}

/* The listener's queue is full for a moment: the guest waits instead of being refused. */
static void test_busy_listener(void **state)
{
	struct fixture *f = begin();
	char path[80];
	int listener = listen_at(f, 77, path, sizeof(path)), waiting[2], fd;

	assert_int_equal(listen(listener, 0), 0);
	waiting[0] = io_unix_connect_nonblock(path, NULL);
	waiting[1] = io_unix_connect_nonblock(path, NULL);
	assert_int_equal(waiting[1], -EAGAIN);
	op(f, VIRTIO_VSOCK_OP_REQUEST, 5000, 77);
	expect_nothing(f);
	close(accept(listener, NULL, NULL));
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	/* It goes away while the guest waits. */
	waiting[1] = io_unix_connect_nonblock(path, NULL);
	op(f, VIRTIO_VSOCK_OP_REQUEST, 5001, 77);
	close(listener);
	expect(f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	close(waiting[0]);
	close(waiting[1]);
	unlink(path);
	end(f);
}

static void test_half_close(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	char buf[16];
	uint32_t port;
	int fd;

	/* The host has sent everything, the guest still sends. */
	port = open_from_host(f, &fd);
	say(fd, "last");
	shutdown(fd, SHUT_WR);
	expect(f, VIRTIO_VSOCK_OP_RW);
	p = expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(p.hdr.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(f, 1024, port, 0, 9);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 9);
	send_from(f, VIRTIO_VSOCK_OP_SHUTDOWN, 1024, port, 3, 0);
	expect(f, VIRTIO_VSOCK_OP_RST);
	expect_end(f, fd);
	close(fd);

	/* The guest has sent everything, the host still sends. */
	port = open_from_host(f, &fd);
	send_data(f, 1024, port, 0, 9);
	send_from(f, VIRTIO_VSOCK_OP_SHUTDOWN, 1024, port, VIRTIO_VSOCK_SHUTDOWN_SEND, 0);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 9);
	expect_end(f, fd);
	say(fd, "still");
	p = expect(f, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(p.data, "still", 5);
	/* It may not send after it said so. */
	send_data(f, 1024, port, 0, 9);
	expect(f, VIRTIO_VSOCK_OP_RST);
	expect_end(f, fd);
	close(fd);

	/* The guest receives no more. */
	port = open_from_host(f, &fd);
	send_from(f, VIRTIO_VSOCK_OP_SHUTDOWN, 1024, port, VIRTIO_VSOCK_SHUTDOWN_RCV, 0);
	guest_run(&f->guest);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	send_data(f, 1024, port, 0, 9);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 9);
	close(fd);
	end(f);
}

/* The host's program does not read: the guest runs out of credit, others go on. */
static void test_slow_host(void **state)
{
	struct fixture *f = begin();
	static uint8_t got[64 << 10];
	uint32_t port, other_port, sent = 0, seen = 0;
	struct packet p;
	int fd, other;

	port = open_from_host(f, &fd);
	other_port = open_from_host(f, &other);
	/* The socket takes some, the device keeps the rest, as far as its credit goes. */
	for (;;) {
		uint32_t fwd = 0;

		send_data(f, 1024, port, sent, 32 << 10);
		sent += 32 << 10;
		if (sent < DEVICE_ALLOC)
			continue;
		op(f, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1024, port);
		while (next_packet(f, &p)) {
			assert_int_equal(p.hdr.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd = p.hdr.fwd_cnt;
		}
		assert_true(sent - fwd <= DEVICE_ALLOC);
		if (sent - fwd + (32 << 10) > DEVICE_ALLOC)
			break;
	}
	send_data(f, 1024, other_port, 0, 100);
	assert_int_equal(recv(other, got, sizeof(got), 0), 100);
	/* The guest closes; everything still arrives. */
	add_buffers(f, 32);
	send_from(f, VIRTIO_VSOCK_OP_SHUTDOWN, 1024, port, 3, 0);
	expect(f, VIRTIO_VSOCK_OP_RST);
	while (seen < sent) {
		ssize_t n = recv(fd, got, sizeof(got), 0);

		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (got[i] != pattern(seen + (uint32_t)i))
				fail_msg("wrong byte at %u", seen + (uint32_t)i);
		seen += (uint32_t)n;
		guest_run(&f->guest);
	}
	expect_end(f, fd);
	close(fd);
	close(other);
	end(f);
}

static void test_credit_lies(void **state)
{
	struct fixture *f = begin();
	uint32_t port;
	int fd;

	/* More than the credit. */
	port = open_from_host(f, &fd);
	for (unsigned i = 0; i < 40; i++)
		send_data(f, 1024, port, 0, 32 << 10);
	expect(f, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	expect(f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	while (guest_used(f->rx, &(struct virtq_used){0}))
		;
	/* Consumed what was never sent. */
	port = open_from_host(f, &fd);
	f->guest_fwd = 1;
	op(f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1024, port);
	expect(f, VIRTIO_VSOCK_OP_RST);
	expect_end(f, fd);
	close(fd);
	end(f);
}

/* The guest's program does not read: the host's data waits in the socket, and none is lost. */
static void test_slow_guest(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	uint8_t chunk[1000];
	uint32_t port, sent = 0, seen = 0;
	uint64_t wakeups;
	ssize_t n;
	int fd;

	f->guest_alloc = 10000;
	port = open_from_host(f, &fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	do {
		for (unsigned i = 0; i < sizeof(chunk); i++)
			chunk[i] = pattern(sent + i);
		n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
		sent += n > 0 ? (uint32_t)n : 0;
	} while (n > 0);
	close(fd); /* what was sent before must arrive all the same */
	while (seen < sent) {
		assert_true(next_packet(f, &p));
		if (p.hdr.op == VIRTIO_VSOCK_OP_RW) {
			for (uint32_t i = 0; i < p.hdr.len; i++)
				if (p.data[i] != pattern(seen + i))
					fail_msg("wrong byte at %u", seen + i);
			seen += p.hdr.len;
			assert_true(seen - f->guest_fwd <= f->guest_alloc);
		}
		if (seen - f->guest_fwd == f->guest_alloc) {
			while (next_packet(f, &p))
				assert_int_not_equal(p.hdr.op, VIRTIO_VSOCK_OP_RW);
			wakeups = loop_wakeups(f->guest.vm.loop);
			for (unsigned i = 0; i < 5; i++)
				loop_run_once(f->guest.vm.loop, 0);
			assert_int_equal(loop_wakeups(f->guest.vm.loop), wakeups + 5);
			f->guest_fwd = seen;
			f->guest.next -= 32 * BUF_SIZE; /* the oldest buffers, again */
			add_buffers(f, 32);
			f->guest_alloc = 50000;
			op(f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1024, port);
		} else if (p.hdr.op == VIRTIO_VSOCK_OP_RW) {
			f->guest.next -= BUF_SIZE;
			add_buffers(f, 1);
		}
	}
	do
		p = expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	while (p.hdr.flags != 3);
	end(f);
}

/* No receive buffers: packets wait, then come in order. */
static void test_starved(void **state)
{
	struct fixture *f = begin_unstarted();
	uint64_t wakeups;
	struct packet p;
	int fd[8];

	start(f, 0);
	for (unsigned i = 0; i < 8; i++) {
		fd[i] = dial(f);
		say(fd[i], "CONNECT 1\n");
	}
	guest_run(&f->guest);
	wakeups = loop_wakeups(f->guest.vm.loop);
	for (unsigned i = 0; i < 5; i++)
		loop_run_once(f->guest.vm.loop, 0);
	assert_int_equal(loop_wakeups(f->guest.vm.loop), wakeups + 5); /* nothing is busy */
	for (unsigned i = 0; i < 8; i++) {
		add_buffers(f, 1);
		p = expect(f, VIRTIO_VSOCK_OP_REQUEST);
		op(f, VIRTIO_VSOCK_OP_RESPONSE, 1, p.hdr.src_port);
		expect_line(f, fd[i], "OK");
		say(fd[i], "data");
	}
	guest_run(&f->guest);
	for (unsigned i = 0; i < 8; i++) {
		add_buffers(f, 1);
		p = expect(f, VIRTIO_VSOCK_OP_RW);
		assert_int_equal(p.hdr.len, 4);
		close(fd[i]);
	}
	end(f);
}

/* A guest that floods us with nonsense and gives no buffers for the answers is held back. */
static void test_reset_flood(void **state)
{
	struct fixture *f = begin_unstarted();
	struct virtio_vsock_hdr hdr = {
		.src_cid = CID, .dst_cid = 2, .type = 1, .op = VIRTIO_VSOCK_OP_RW};
	struct guest_buf buf = {f->out, HEADER, false};
	struct virtq_used used;
	unsigned done = 0;

	start(f, 0);
	memcpy(at(f, f->out), &hdr, HEADER);
	for (unsigned i = 0; i < 200; i++)
		guest_add(f->tx, &buf, 1);
	guest_kick(f->tx);
	guest_run(&f->guest);
	while (guest_used(f->tx, &used))
		done++;
	assert_int_equal(done, 128);
	add_buffers(f, 100);
	for (unsigned i = 0; i < 100; i++)
		expect(f, VIRTIO_VSOCK_OP_RST);
	add_buffers(f, 100);
	for (unsigned i = 0; i < 100; i++)
		expect(f, VIRTIO_VSOCK_OP_RST);
	while (guest_used(f->tx, &used))
		done++;
	assert_int_equal(done, 200);
	end(f);
}

static void send_raw(struct fixture *f, const struct virtio_vsock_hdr *hdr, uint32_t len)
{
	struct guest_buf buf = {f->out, len, false};

	memcpy(at(f, f->out), hdr, HEADER);
	guest_request(f->tx, &buf, 1);
}

static void test_bad_packets(void **state)
{
	struct fixture *f = begin();
	struct virtio_vsock_hdr good = {.src_cid = CID,
					.dst_cid = 2,
					.src_port = 1024,
					.dst_port = 5,
					.type = VIRTIO_VSOCK_TYPE_STREAM,
					.op = VIRTIO_VSOCK_OP_RW,
					.buf_alloc = 4096};
	struct virtio_vsock_hdr hdr = good;
	uint32_t port;
	int fd;

	send_raw(f, &good, HEADER - 1); /* cut */
	hdr.src_cid = CID + 1;
	send_raw(f, &hdr, HEADER);
	hdr = good;
	hdr.dst_cid = 3;
	send_raw(f, &hdr, HEADER);
	hdr = good;
	hdr.op = VIRTIO_VSOCK_OP_RST; /* a reset is never answered */
	send_raw(f, &hdr, HEADER);
	expect_nothing(f);
	hdr = good;
	hdr.type = 2;
	hdr.op = VIRTIO_VSOCK_OP_REQUEST;
	send_raw(f, &hdr, HEADER);
	expect(f, VIRTIO_VSOCK_OP_RST);
	hdr = good;
	hdr.op = 99;
	send_raw(f, &hdr, HEADER);
	expect(f, VIRTIO_VSOCK_OP_RST);
	/* On a connection: a length that is not there, an unknown operation, a second request. */
	for (unsigned i = 0; i < 3; i++) {
		port = open_from_host(f, &fd);
		hdr = good;
		hdr.dst_port = port;
		hdr.len = i ? 0 : UINT32_MAX;
		hdr.op = i == 1 ? 99 : i == 2 ? VIRTIO_VSOCK_OP_REQUEST : VIRTIO_VSOCK_OP_RW;
		send_raw(f, &hdr, HEADER);
		expect(f, VIRTIO_VSOCK_OP_RST);
		expect_end(f, fd);
		close(fd);
	}
	assert_int_equal(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	end(f);
}

static void test_many(void **state)
{
	static int fd[2000];
	static uint32_t port[2000];
	struct rlimit files;
	struct fixture *f;
	struct packet p;
	unsigned n;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	/* Half of the descriptors may be the device's; the clients are in this process too. */
	n = files.rlim_cur > 5000 ? 2000 : (unsigned)files.rlim_cur / 2 - 100;
	f = begin();
	for (unsigned i = 0; i < n; i++) {
		port[i] = open_from_host(f, &fd[i]);
		f->guest.next -= BUF_SIZE;
		add_buffers(f, 1);
	}
	for (unsigned i = 0; i < n; i++) {
		char byte;

		send_data(f, 1024, port[i], i, 1);
		assert_int_equal(recv(fd[i], &byte, 1, 0), 1);
		assert_int_equal((uint8_t)byte, pattern(i));
		assert_int_equal(send(fd[i], &i, sizeof(i), 0), sizeof(i));
		p = expect(f, VIRTIO_VSOCK_OP_RW);
		assert_int_equal(p.hdr.src_port, port[i]);
		assert_memory_equal(p.data, &i, sizeof(i));
		f->guest.next -= BUF_SIZE;
		add_buffers(f, 1);
	}
	/* The driver goes: so do its connections. */
	guest_set_status(&f->dev, 0);
	for (unsigned i = 0; i < n; i++) {
		expect_end(f, fd[i]);
		close(fd[i]);
	}
	end(f);
}

/* Nothing moves while the device is paused. */
static void test_pause(void **state)
{
	struct fixture *f = begin();
	struct packet p;
	int fd, second;

	open_from_host(f, &fd);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	say(fd, "later");
	second = dial(f);
	say(second, "CONNECT 5\n");
	expect_nothing(f);
	f->device->ops->resume(f->device);
	p = expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.hdr.len, 5);
	expect(f, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
	close(second);
	end(f);
}

/* A restored guest learns that its connections are gone before it hears of new ones. */
static void test_restored(void **state)
{
	struct fixture *f = begin();
	struct guest_queue *events = &f->dev.queue[2];
	struct guest_buf buf = {guest_alloc(&f->guest, 4, 4), 4, true};
	struct virtq_used used;
	struct error err;
	int fd;

	guest_add(events, &buf, 1);
	guest_add(events, &buf, 1);
	guest_kick(events);
	memset(at(f, buf.gpa), 0xee, 4);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	assert_int_equal(f->device->ops->restored(f->device, &err), 0);
	f->device->ops->resume(f->device);
	assert_true(guest_wait(events, &used));
	assert_int_equal(used.written, 4);
	assert_int_equal(*(uint32_t *)at(f, buf.gpa), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	fd = dial(f);
	say(fd, "CONNECT 1024\n");
	expect_nothing(f);
	guest_add(events, &buf, 1);
	guest_kick(events);
	expect(f, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
	end(f);
}

static void refused(const char *options, const char *reason)
{
	struct fixture f = {0};
	struct error err = {0};

	guest_create(&f.guest);
	assert_true(create(&f, options, &err) < 0);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
	guest_destroy(&f.guest);
	free(f.cfg.text);
}

static void test_refused(void **state)
{
	struct fixture *f = begin();
	char options[128];

	refused(",cid=2,path=/tmp/x", "cid");
	refused(",cid=4294967295,path=/tmp/x", "cid");
	refused(",cid=3,path=/tmp/x,vhost=maybe", "vhost=maybe");
	refused(",cid=3,vhost=off", "needs path=SOCKET");
	refused(",cid=3,path=/nonexistent/x", "/nonexistent/x");
	snprintf(options, sizeof(options), ",cid=3,path=%s", f->path);
	refused(options, f->path); /* somebody answers there */
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_initiated), cmocka_unit_test(test_early_data),
		cmocka_unit_test(test_host_refused),   cmocka_unit_test(test_guest_initiated),
		cmocka_unit_test(test_busy_listener),  cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_slow_host),      cmocka_unit_test(test_credit_lies),
		cmocka_unit_test(test_slow_guest),     cmocka_unit_test(test_starved),
		cmocka_unit_test(test_reset_flood),    cmocka_unit_test(test_bad_packets),
		cmocka_unit_test(test_many),	       cmocka_unit_test(test_pause),
		cmocka_unit_test(test_restored),       cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("vsock", tests, NULL, NULL);
}
