/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile virtio driver: the input is a list of operations on the rings and the registers of
 * an echo device. Whatever it does, requests that reach the device lie inside guest memory
 * (echo.c checks each), and after a reset the device works.
 */

#include <linux/virtio_config.h>
#include <string.h>

#include "input.h"
#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 512
#define AREA 0x8000 /* bytes of guest memory that pieces and tables usually are in */

struct fuzz {
	struct guest guest;
	struct guest_device dev;
	struct echo *echo;
	struct input in;
	uint64_t area, heap; /* guest addresses: scratch, where rings are allocated */
};

enum operation {
	OP_RING_BYTES,
	OP_DESC,
	OP_TABLE_ENTRY,
	OP_PUBLISH,
	OP_KICK,
	OP_RUN,
	OP_REGISTER,
	OP_START,
	OP_SERVE,
	OP_PAUSE,
	OP_CONFIG,
	OPERATIONS
};

static struct guest_queue *pick_queue(struct fuzz *f)
{
	return &f->dev.queue[input_u8(&f->in) & 1];
}

/* Mostly inside the area, sometimes near a border or anywhere. */
static uint64_t pick_address(struct fuzz *f)
{
	switch (input_u8(&f->in) & 7) {
	case 0:
		return GUEST_LOW - input_u8(&f->in);
	case 1:
		return MEMORY_HIGH_START + GUEST_RAM - GUEST_LOW - input_u8(&f->in);
	case 2:
		return input_number(&f->in, 8);
	default:
		return f->area + input_number(&f->in, 2) % AREA;
	}
}

static void start(struct fuzz *f)
{
	uint64_t features = input_number(&f->in, 5);

	f->guest.next = f->heap;
	guest_start(&f->dev, features, (uint16_t)(1u << input_u8(&f->in) % 8));
}

/* Any bytes over the descriptor table, the available ring or the used ring. */
static void write_ring_bytes(struct fuzz *f)
{
	struct guest_queue *q = pick_queue(f);
	uint64_t gpa[] = {q->desc, q->avail, q->used};
	uint64_t size[] = {16ULL * q->size, 6 + 2ULL * q->size, 6 + 8ULL * q->size};
	unsigned which = input_u8(&f->in) % 3, n = input_u8(&f->in) & 31;
	uint64_t offset = input_number(&f->in, 2) % size[which];

	for (unsigned i = 0; i < n && offset + i < size[which]; i++)
		*(uint8_t *)guest_at(&f->guest, gpa[which] + offset + i, 1) = input_u8(&f->in);
}

static void write_desc(struct fuzz *f, bool table)
{
	struct guest_queue *q = pick_queue(f);
	uint16_t at = input_u8(&f->in);
	uint64_t addr = pick_address(f);
	uint32_t len = (uint32_t)input_number(&f->in, 1 + (input_u8(&f->in) & 3));
	uint16_t flags = input_u8(&f->in) & 7, next = input_u8(&f->in);

	if (table) {
		struct {
			uint64_t addr;
			uint32_t len;
			uint16_t flags, next;
		} entry = {addr, len, flags, next};

		memcpy(guest_at(&f->guest, f->area + 16 * at, 16), &entry, 16);
		return;
	}
	guest_set_desc(q, at % q->size, addr, len, flags, next);
}

static void pause_resume(struct fuzz *f)
{
	struct device *dev = &f->echo->virtio.device;

	if (input_u8(&f->in) & 1)
		dev->ops->pause(dev);
	else
		dev->ops->resume(dev);
}

static void operate(struct fuzz *f)
{
	struct guest_queue *q;

	switch (input_u8(&f->in) % OPERATIONS) {
	case OP_RING_BYTES:
		write_ring_bytes(f);
		break;
	case OP_DESC:
		write_desc(f, false);
		break;
	case OP_TABLE_ENTRY:
		write_desc(f, true);
		break;
	case OP_PUBLISH:
		q = pick_queue(f);
		guest_publish(q, input_u8(&f->in));
		break;
	case OP_KICK:
		guest_kick_always(pick_queue(f));
		break;
	case OP_RUN:
		guest_run(&f->guest);
		break;
	case OP_REGISTER: {
		uint64_t at = f->dev.common + input_u8(&f->in) % 0x40;
		unsigned width = input_width(&f->in);

		guest_read(&f->guest, at, width);
		guest_write(&f->guest, at, input_number(&f->in, width), width);
		break;
	}
	case OP_START:
		start(f);
		break;
	case OP_SERVE:
		echo_serve(f->echo, &f->echo->virtio.queue[input_u8(&f->in) & 1]);
		break;
	case OP_PAUSE:
		pause_resume(f);
		break;
	case OP_CONFIG:
		guest_read(&f->guest, f->dev.config + input_u8(&f->in), input_width(&f->in));
		guest_write(&f->guest, f->dev.config + input_u8(&f->in), 0, input_width(&f->in));
		break;
	}
}

/* Nothing that came before may keep a well-behaved driver from working now. */
static void check_works(struct fuzz *f)
{
	struct device *dev = &f->echo->virtio.device;
	struct guest_buf bufs[] = {{f->area, 8, false}, {f->area + 8, 8, true}};

	dev->ops->resume(dev);
	f->guest.next = f->heap;
	guest_start(&f->dev, ~0ULL, 8);
	memcpy(guest_at(&f->guest, f->area, 16), "question........", 16);
	guest_require(guest_request(&f->dev.queue[0], bufs, 2) == 8);
	guest_require(!memcmp(guest_at(&f->guest, f->area + 8, 8), "question", 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = {.in = {data, size, 0}};

	guest_create(&f.guest);
	f.guest.vm.log.level = -1;
	f.echo = echo_create(&f.guest.vm);
	guest_probe(&f.guest, ECHO_ID, 0, &f.dev);
	f.area = guest_alloc(&f.guest, AREA, 4096);
	f.heap = f.guest.next;
	start(&f);
	for (unsigned i = 0; i < OPERATIONS_MAX && f.in.pos < f.in.size; i++)
		operate(&f);
	check_works(&f);
	guest_destroy(&f.guest);
	return 0;
}
