/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver of the vsock device and unruly programs on the host: packets with any header,
 * receive buffers of any size, clients that connect, write, read, half-close and leave at any
 * moment. Afterwards, when the driver was reset, a connection works.
 */

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 100
#define AREA (128u << 10)
#define QUEUE_SIZE 64
#define HEADER sizeof(struct virtio_vsock_hdr)
#define CID 5u
#define CLIENTS 4
#define FIRST_PORT 0x40000000u /* of connections from the host */

struct fuzz {
	struct guest guest;
	struct guest_device dev;
	struct device *device;
	struct input in;
	char dir[32], path[40], path_77[48];
	int listener, client[CLIENTS];
	uint64_t area, heap;
	bool paused;
};

enum operation {
	OP_PACKET,
	OP_BUFFER,
	OP_KICK,
	OP_RUN,
	OP_DIAL,
	OP_WRITE,
	OP_READ,
	OP_CLOSE,
	OP_PAUSE,
	OP_RESTORED,
	OP_START,
	OPERATIONS
};

static void start(struct fuzz *f)
{
	f->guest.next = f->heap;
	guest_start(&f->dev, ~0ULL, 16);
}

static uint32_t pick_number(struct fuzz *f)
{
	return (uint32_t)input_number(&f->in, 1 + (input_u8(&f->in) & 3));
}

/* Fields that often are right, so that packets get far. */
static void send_packet(struct fuzz *f)
{
	static const uint32_t host_ports[] = {77, FIRST_PORT, FIRST_PORT + 1, 78};
	unsigned odd = input_u8(&f->in);
	struct virtio_vsock_hdr hdr = {
		.src_cid = odd == 1 ? input_number(&f->in, 8) : CID,
		.dst_cid = odd == 2 ? input_number(&f->in, 8) : 2,
		.src_port = 1000 + (input_u8(&f->in) & 1),
		.dst_port = host_ports[input_u8(&f->in) & 3],
		.type = odd == 3 ? input_u8(&f->in) : VIRTIO_VSOCK_TYPE_STREAM,
		.op = input_u8(&f->in) & 15,
		.flags = input_u8(&f->in) & 3,
		.buf_alloc = pick_number(f),
		.fwd_cnt = odd & 0x80 ? pick_number(f) : 0,
	};
	struct guest_buf bufs[] = {{f->area, HEADER, false}, {f->area + HEADER, 1, odd == 6}};
	uint32_t len = pick_number(f) % 100000;

	if (hdr.op == VIRTIO_VSOCK_OP_RW)
		hdr.len = odd == 4 ? pick_number(f) : len;
	if (odd == 5)
		bufs[0].len = input_u8(&f->in) % HEADER + 1;
	bufs[1].len = len;
	memcpy(guest_at(&f->guest, f->area, HEADER), &hdr, HEADER);
	guest_add(&f->dev.queue[1], bufs, len ? 2 : 1);
}

static void add_buffer(struct fuzz *f)
{
	unsigned size = input_u8(&f->in), n = 1 + (input_u8(&f->in) & 7);
	struct guest_buf bufs[] = {{f->area, 44, true}, {f->area + 64, 4096, true}};

	if (size < 16) { /* unusual: short, or cut in the header */
		bufs[0].len = 1 + size * 3;
		bufs[1].len = 1 + input_u8(&f->in);
	}
	while (n--)
		guest_add(&f->dev.queue[size & 1 ? 2 : 0], bufs, size & 2 ? 2 : 1);
}

static int *pick_client(struct fuzz *f)
{
	return &f->client[input_u8(&f->in) % CLIENTS];
}

static void dial(struct fuzz *f)
{
	int *fd = pick_client(f);
	bool accepts = input_u8(&f->in) & 1;

	if (*fd >= 0)
		close(*fd);
	*fd = accepts ? accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
		      : io_unix_connect_nonblock(f->path, NULL);
	if (*fd >= 0 && !accepts && input_u8(&f->in) & 7)
		dprintf(*fd, "CONNECT %u\n", 1000 + (input_u8(&f->in) & 1));
}

static void client_write(struct fuzz *f)
{
	static const char data[65536] = "CONNECT 1000\n";
	int fd = *pick_client(f);
	size_t len = input_number(&f->in, 2);

	if (fd >= 0 && send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return; /* it is full or closed */
}

static void client_read(struct fuzz *f)
{
	char data[4096];
	int fd = *pick_client(f);

	if (fd >= 0 && recv(fd, data, sizeof(data), MSG_DONTWAIT) < 0)
		return;
}

static void client_close(struct fuzz *f)
{
	int *fd = pick_client(f);
	unsigned how = input_u8(&f->in) % 3;

	if (*fd < 0)
		return;
	if (how < 2) {
		shutdown(*fd, how ? SHUT_WR : SHUT_RD);
		return;
	}
	close(*fd);
	*fd = -1;
}

static void set_paused(struct fuzz *f, bool paused)
{
	if (f->paused == paused)
		return;
	if (paused)
		f->device->ops->pause(f->device);
	else
		f->device->ops->resume(f->device);
	f->paused = paused;
}

/* As after a restore: the driver is told that its connections are gone. */
static void restored(struct fuzz *f)
{
	struct device *dev = f->device;
	struct error err;

	set_paused(f, true);
	dev->ops->restored(dev, &err);
	set_paused(f, false);
}

static void operate(struct fuzz *f)
{
	switch (input_u8(&f->in) % OPERATIONS) {
	case OP_PACKET:
		send_packet(f);
		break;
	case OP_BUFFER:
		add_buffer(f);
		break;
	case OP_KICK:
		guest_kick_always(&f->dev.queue[input_u8(&f->in) % 3]);
		break;
	case OP_RUN:
		guest_run(&f->guest);
		break;
	case OP_DIAL:
		dial(f);
		break;
	case OP_WRITE:
		client_write(f);
		break;
	case OP_READ:
		client_read(f);
		break;
	case OP_CLOSE:
		client_close(f);
		break;
	case OP_PAUSE:
		set_paused(f, !f->paused);
		break;
	case OP_RESTORED:
		restored(f);
		break;
	case OP_START:
		start(f);
		break;
	}
}

static void check_works(struct fuzz *f)
{
	struct guest_buf buf = {f->area, 4096, true}, answer = {f->area + 4096, HEADER, false};
	struct virtio_vsock_hdr hdr;
	struct virtq_used used;
	char line[16] = "";
	int fd;

	for (unsigned i = 0; i < CLIENTS; i++)
		if (f->client[i] >= 0)
			close(f->client[i]);
	set_paused(f, false);
	start(f);
	guest_run(&f->guest);
	fd = io_unix_connect_nonblock(f->path, NULL);
	guest_require(fd >= 0 && dprintf(fd, "CONNECT 7\n") == 10);
	do { /* what earlier clients left may come first */
		guest_add(&f->dev.queue[0], &buf, 1);
		guest_kick(&f->dev.queue[0]);
		guest_require(guest_wait(&f->dev.queue[0], &used) && used.written == HEADER);
		memcpy(&hdr, guest_at(&f->guest, f->area, HEADER), HEADER);
	} while (hdr.op != VIRTIO_VSOCK_OP_REQUEST || hdr.dst_port != 7);
	hdr = (struct virtio_vsock_hdr){.src_cid = CID,
					.dst_cid = 2,
					.src_port = 7,
					.dst_port = hdr.src_port,
					.type = VIRTIO_VSOCK_TYPE_STREAM,
					.op = VIRTIO_VSOCK_OP_RESPONSE};
	memcpy(guest_at(&f->guest, f->area + 4096, HEADER), &hdr, HEADER);
	guest_request(&f->dev.queue[1], &answer, 1);
	guest_require(recv(fd, line, 3, 0) == 3 && !strcmp(line, "OK "));
	close(fd);
}

static void create(struct fuzz *f, struct device_config *cfg)
{
	struct error err;
	char text[80];

	/* In memory: a journal would take most of the time. */
	snprintf(f->dir, sizeof(f->dir), "%s/wisp-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	guest_require(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
	snprintf(f->path_77, sizeof(f->path_77), "%s_77", f->path);
	f->listener = io_unix_listen(f->path_77, NULL);
	guest_require(f->listener >= 0 && !fcntl(f->listener, F_SETFL, O_NONBLOCK));
	for (unsigned i = 0; i < CLIENTS; i++)
		f->client[i] = -1;
	snprintf(text, sizeof(text), "vsock,cid=%u,path=%s", CID, f->path);
	guest_create(&f->guest);
	f->guest.vm.log.level = -1;
	guest_require(!device_config_parse(text, cfg, &err));
	guest_require(!cfg->desc->create(&f->guest.vm, cfg, &f->device, &err));
	guest_probe(&f->guest, VIRTIO_ID_VSOCK, 0, &f->dev);
	f->area = guest_alloc(&f->guest, AREA, 4096);
	f->heap = f->guest.next;
	start(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = {.in = {data, size, 0}};
	struct device_config cfg;

	create(&f, &cfg);
	for (unsigned i = 0; i < OPERATIONS_MAX && f.in.pos < f.in.size; i++)
		operate(&f);
	check_works(&f);
	guest_destroy(&f.guest);
	close(f.listener);
	unlink(f.path_77);
	rmdir(f.dir);
	free(cfg.text);
	return 0;
}
