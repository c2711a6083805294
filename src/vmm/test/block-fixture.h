/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_TEST_BLOCK_FIXTURE_H
#define WISP_VMM_TEST_BLOCK_FIXTURE_H

/* A block device on a file full of a pattern, and requests to it, for cmocka tests. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <unistd.h>

#include "lib/error.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define DISK_SIZE (1u << 20)
#define DISK_SECTORS (DISK_SIZE / 512)

struct fixture {
	struct guest guest;
	struct guest_device dev;
	struct guest_queue *q;
	struct device *device;
	struct device_config cfg;
	char path[64];
	uint64_t header, status, data; /* guest memory for one request */
};

/* Byte of the pattern the disk is filled with. */
static inline uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset ^ offset >> 8 ^ offset >> 16);
}

static inline int make_disk(const char *dir, char *path, size_t size)
{
	static uint8_t bytes[DISK_SIZE];
	int fd;

	snprintf(path, size, "%s/wisp-test-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	for (unsigned i = 0; i < DISK_SIZE; i++)
		bytes[i] = pattern(i);
	assert_int_equal(write(fd, bytes, DISK_SIZE), DISK_SIZE);
	return fd;
}

static inline int create(struct fixture *f, const char *options, struct error *err)
{
	char text[256];

	free(f->cfg.text);
	snprintf(text, sizeof(text), "block,path=%s%s", f->path, options);
	assert_int_equal(device_config_parse(text, &f->cfg, err), 0);
	return f->cfg.desc->create(&f->guest.vm, &f->cfg, &f->device, err);
}

static inline struct fixture *begin_with(struct fixture *f, const char *options, uint64_t features)
{
	struct error err;

	guest_create(&f->guest);
	if (create(f, options, &err))
		fail_msg("%s", err.text);
	guest_probe(&f->guest, VIRTIO_ID_BLOCK, 0, &f->dev);
	guest_start(&f->dev, features, 64);
	f->q = &f->dev.queue[0];
	f->header = guest_alloc(&f->guest, 16, 16);
	f->status = guest_alloc(&f->guest, 1, 1);
	f->data = guest_alloc(&f->guest, 256 << 10, 4096);
	return f;
}

static inline struct fixture *begin_in(const char *dir, const char *options, uint64_t features)
{
	struct fixture *f = calloc(1, sizeof(*f));

	close(make_disk(dir, f->path, sizeof(f->path)));
	return begin_with(f, options, features);
}

/* With holes behind the pattern. */
static inline struct fixture *begin_sized(off_t size)
{
	struct fixture *f = calloc(1, sizeof(*f));

	close(make_disk("/tmp", f->path, sizeof(f->path)));
	assert_int_equal(truncate(f->path, size), 0);
	return begin_with(f, "", ~0ULL);
}

static inline struct fixture *begin(const char *options)
{
	return begin_in("/tmp", options, ~0ULL);
}

static inline void end(struct fixture *f)
{
	guest_destroy(&f->guest);
	free(f->cfg.text);
	unlink(f->path);
	free(f);
}

static inline void *at(struct fixture *f, uint64_t gpa)
{
	return guest_at(&f->guest, gpa, 1);
}

static inline void put_header(struct fixture *f, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};

	memcpy(at(f, f->header), &hdr, sizeof(hdr));
	*(uint8_t *)at(f, f->status) = 0xee;
}

/* One request with its data in one piece; returns the status. */
static inline int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len,
			  bool write)
{
	struct guest_buf bufs[] = {
		{f->header, 16, false}, {f->data, len, write}, {f->status, 1, true}};

	put_header(f, type, sector);
	if (!len)
		bufs[1] = bufs[2];
	guest_request(f->q, bufs, len ? 3 : 2);
	return *(uint8_t *)at(f, f->status);
}

static inline int range_request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t count,
				uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes seg = {
		.sector = sector, .num_sectors = count, .flags = flags};

	memcpy(at(f, f->data), &seg, sizeof(seg));
	return request(f, type, 0, sizeof(seg), false);
}

#endif
