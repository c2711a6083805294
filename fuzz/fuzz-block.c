/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver of the block device: the input is a list of requests with any header, cut in
 * any way, some while others are in flight, and while somebody copies the disk who writes anything
 * to what is shared with him. Whatever they do, the disk keeps its size, requests outside it fail,
 * and after a reset the device works.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "vmm/block/store.h"
#include "vmm/device.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 64
#define DISK_SIZE (64u << 10)
#define AREA (256u << 10)
#define QUEUE_SIZE 32
#define PIECES_MAX 8

struct fuzz {
	struct guest guest;
	struct guest_device dev;
	struct device *device;
	struct input in;
	int disk;
	uint64_t area, heap;
	bool paused;
	int shared; /* with who copies the disk, -1: nobody */
};

enum operation {
	OP_REQUEST,
	OP_RAW,
	OP_KICK,
	OP_RUN,
	OP_PAUSE,
	OP_START,
	OP_CONFIG,
	OP_COPY,
	OP_SHARED,
	OPERATIONS
};

static void start(struct fuzz *f, uint64_t features)
{
	f->guest.next = f->heap;
	guest_start(&f->dev, features, QUEUE_SIZE);
}

/* Numbers near those that matter. */
static uint64_t pick_sector(struct fuzz *f)
{
	uint64_t near = (uint64_t)(int8_t)input_u8(&f->in);

	switch (input_u8(&f->in) & 3) {
	case 0:
		return DISK_SIZE / 512 + near;
	case 1:
		return UINT64_MAX / 512 + near;
	case 2:
		return input_number(&f->in, 8);
	default:
		return near & 127;
	}
}

static void put_header(struct fuzz *f)
{
	struct virtio_blk_outhdr hdr = {.type = input_u8(&f->in) & 15, .sector = pick_sector(f)};
	struct virtio_blk_discard_write_zeroes seg = {.sector = pick_sector(f),
						      .num_sectors =
							      (uint32_t)input_number(&f->in, 4),
						      .flags = input_u8(&f->in) & 3};

	memcpy(guest_at(&f->guest, f->area, sizeof(hdr)), &hdr, sizeof(hdr));
	memcpy(guest_at(&f->guest, f->area + sizeof(hdr), sizeof(seg)), &seg, sizeof(seg));
}

/* Header, data of some sectors and status, in order, or pieces of any length (raw). */
static void add_request(struct fuzz *f, bool raw)
{
	struct guest_buf bufs[PIECES_MAX];
	unsigned n = raw ? 1 + input_u8(&f->in) % PIECES_MAX : 3;
	unsigned readable = input_u8(&f->in) % (n + 1);
	uint64_t at = f->area;

	put_header(f);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = 1 + (uint32_t)input_number(&f->in, 2) % (AREA / PIECES_MAX);

		if (!raw)
			len = !i ? 16 : i == 2 ? 1 : (1 + len % 64) * 512;
		bufs[i] = (struct guest_buf){at, len, raw ? i >= readable : i > readable % 2};
		at += len;
	}
	if (!raw)
		bufs[2].write = true;
	guest_add(&f->dev.queue[0], bufs, n);
}

static struct store *store_of(struct fuzz *f)
{
	struct device_disk disk;

	guest_require(f->device->ops->disk(f->device, &disk));
	return disk.store;
}

/* Begins a copy, or ends it in one of the ways there are. */
static void copy(struct fuzz *f)
{
	uint64_t bytes;

	if (f->shared >= 0) {
		if (input_u8(&f->in) & 1)
			store_copy_gone(store_of(f), f);
		else
			store_copy_stop(store_of(f), f, &bytes, NULL);
		f->shared = -1;
	} else if (f->paused) {
		int file = memfd_create("copy", MFD_CLOEXEC);

		guest_require(file >= 0 && !ftruncate(file, DISK_SIZE));
		f->shared = store_copy_start(store_of(f), file, f, NULL);
		guest_require(f->shared >= 0);
		close(file);
	}
}

static void operate(struct fuzz *f)
{
	switch (input_u8(&f->in) % OPERATIONS) {
	case OP_REQUEST:
		add_request(f, false);
		break;
	case OP_RAW:
		add_request(f, true);
		break;
	case OP_KICK:
		guest_kick_always(&f->dev.queue[0]);
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
	case OP_COPY:
		copy(f);
		break;
	case OP_SHARED: {
		uint8_t bytes[2] = {input_u8(&f->in), input_u8(&f->in)};

		if (f->shared >= 0)
			guest_require(pwrite(f->shared, bytes, 2, 0) == 2);
		break;
	}
	case OP_CONFIG: {
		unsigned width = input_width(&f->in);
		uint64_t at = f->dev.config + input_u8(&f->in);

		guest_read(&f->guest, at, width);
		guest_write(&f->guest, at, input_u8(&f->in), width);
		break;
	}
	}
}

static void check_works(struct fuzz *f)
{
	struct guest_buf bufs[] = {
		{f->area, 16, false}, {f->area + 512, DISK_SIZE, true}, {f->area + 16, 1, true}};
	struct stat st;

	if (f->paused)
		f->device->ops->resume(f->device);
	start(f, ~0ULL);
	memset(guest_at(&f->guest, f->area, 16), 0, 16); /* read sector 0 */
	guest_require(guest_request(&f->dev.queue[0], bufs, 3) == DISK_SIZE + 1);
	guest_require(*(uint8_t *)guest_at(&f->guest, f->area + 16, 1) == VIRTIO_BLK_S_OK);
	guest_require(!fstat(f->disk, &st) && st.st_size == DISK_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = {.in = {data, size, 0}, .shared = -1};
	struct device_config cfg;
	struct error err;
	char text[64];

	f.disk = memfd_create("disk", MFD_CLOEXEC);
	guest_require(f.disk >= 0 && !ftruncate(f.disk, DISK_SIZE));
	snprintf(text, sizeof(text), "block,path=/proc/self/fd/%d", f.disk);
	guest_create(&f.guest);
	f.guest.vm.log.level = -1;
	guest_require(!device_config_parse(text, &cfg, &err));
	guest_require(!cfg.desc->create(&f.guest.vm, &cfg, &f.device, &err));
	guest_probe(&f.guest, VIRTIO_ID_BLOCK, 0, &f.dev);
	f.area = guest_alloc(&f.guest, AREA, 4096);
	f.heap = f.guest.next;
	start(&f, ~0ULL);
	for (unsigned i = 0; i < OPERATIONS_MAX && f.in.pos < f.in.size; i++)
		operate(&f);
	check_works(&f);
	guest_destroy(&f.guest);
	close(f.disk);
	free(cfg.text);
	return 0;
}
