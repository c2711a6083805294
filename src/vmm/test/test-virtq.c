/* SPDX-License-Identifier: Apache-2.0 */
/* Virtqueues: what correct drivers get, and what each kind of broken ring leads to. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"

#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)

struct fixture {
	struct guest guest;
	struct echo *echo;
	struct guest_device dev;
	struct guest_queue *gq; /* queue 0, served by kicks */
	struct guest_queue *manual;
	struct virtq *q; /* the device's side of manual */
};

static void begin_with(struct fixture *f, uint64_t features, uint16_t size)
{
	guest_create(&f->guest);
	f->echo = echo_create(&f->guest.vm);
	guest_probe(&f->guest, ECHO_ID, 0, &f->dev);
	guest_start(&f->dev, features, size);
	f->gq = &f->dev.queue[0];
	f->manual = &f->dev.queue[1];
	f->q = &f->echo->virtio.queue[1];
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	begin_with(f, ~0ULL, 16);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_destroy(&f->guest);
	free(f);
	return 0;
}

static struct guest_buf text_buf(struct fixture *f, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);
	struct guest_buf buf = {.gpa = guest_alloc(&f->guest, len, 1), .len = len};

	memcpy(guest_at(&f->guest, buf.gpa, len), text, len);
	return buf;
}

static struct guest_buf room_buf(struct fixture *f, uint32_t len)
{
	return (struct guest_buf){.gpa = guest_alloc(&f->guest, len, 1), .len = len, .write = true};
}

static void test_echo(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 100; i++) {
		struct guest_buf bufs[] = {text_buf(f, "frei"), text_buf(f, "heit"), room_buf(f, 3),
					   room_buf(f, 10)};

		assert_int_equal(guest_request(f->gq, bufs, 4), 8);
		assert_memory_equal(guest_at(&f->guest, bufs[2].gpa, 3), "fre", 3);
		assert_memory_equal(guest_at(&f->guest, bufs[3].gpa, 5), "iheit", 5);
		assert_int_equal(guest_interrupts(&f->dev, 1), 1);
	}
	assert_int_equal(f->echo->virtio.queue[0].requests, 100);
	assert_false(f->echo->virtio.broken);
}

static void test_indirect(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[VIRTQ_IOV_MAX];
	struct virtq_used used;

	/* More pieces than the ring has entries. */
	for (unsigned i = 0; i < VIRTQ_IOV_MAX; i++)
		bufs[i] = i % 2 ? room_buf(f, 2) : text_buf(f, "ab");
	for (unsigned i = 0; i < VIRTQ_IOV_MAX / 2; i++) {
		struct guest_buf b = bufs[i];

		if (!b.write)
			continue;
		bufs[i] = bufs[VIRTQ_IOV_MAX - 1 - i];
		bufs[VIRTQ_IOV_MAX - 1 - i] = b;
	}
	guest_add_indirect(f->gq, bufs, VIRTQ_IOV_MAX);
	guest_kick(f->gq);
	assert_true(guest_wait(f->gq, &used));
	assert_int_equal(used.written, VIRTQ_IOV_MAX);
	assert_int_equal(f->echo->chain.nread, VIRTQ_IOV_MAX / 2);
	assert_int_equal(f->echo->chain.nwrite, VIRTQ_IOV_MAX / 2);
	assert_memory_equal(guest_at(&f->guest, bufs[VIRTQ_IOV_MAX - 1].gpa, 2), "ab", 2);
}

static void test_high_memory(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[] = {text_buf(f, "high"), {MEMORY_HIGH_START, 4, true}};

	assert_int_equal(guest_request(f->gq, bufs, 2), 4);
	assert_memory_equal(guest_at(&f->guest, MEMORY_HIGH_START, 4), "high", 4);
}

/* Without EVENT_IDX the flags of the rings say who wants to hear. */
static void test_flags(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[] = {text_buf(f, "x"), room_buf(f, 1)};
	struct virtq_used used;
	uint16_t *flags;

	guest_destroy(&f->guest);
	begin_with(f, 0, 16);
	bufs[0] = text_buf(f, "x");
	bufs[1] = room_buf(f, 1);
	virtq_disable_kicks(f->q);
	guest_add(f->manual, bufs, 2);
	assert_false(guest_kick(f->manual));
	assert_true(virtq_enable_kicks(f->q));
	assert_true(guest_kick(f->manual));
	flags = guest_at(&f->guest, f->manual->avail, 2);
	*flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_int_equal(echo_serve(f->echo, f->q), 1);
	assert_true(guest_used(f->manual, &used));
	assert_int_equal(guest_interrupts(&f->dev, 2), 0);
	*flags = 0;
	guest_add(f->manual, bufs, 2);
	assert_int_equal(echo_serve(f->echo, f->q), 1);
	assert_int_equal(guest_interrupts(&f->dev, 2), 1);
	/* Nothing new, nothing to tell. */
	virtq_notify(f->q);
	assert_int_equal(guest_interrupts(&f->dev, 2), 0);
}

static void test_event_idx(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[] = {text_buf(f, "x"), room_buf(f, 1)};
	struct virtq_used used;

	guest_set_used_event(f->manual, 2); /* interrupt at the third */
	for (unsigned i = 0; i < 4; i++) {
		guest_add(f->manual, bufs, 2);
		/* The device has asked for a kick at the first entry alone. */
		assert_int_equal(guest_kick(f->manual), i == 0);
		assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
		virtq_push(f->q, &f->echo->chain, 1);
		virtq_notify(f->q);
		assert_int_equal(guest_interrupts(&f->dev, 2), i == 2);
	}
	assert_false(virtq_enable_kicks(f->q));
	guest_add(f->manual, bufs, 2);
	assert_true(guest_kick(f->manual));
	assert_true(virtq_enable_kicks(f->q));
	while (guest_used(f->manual, &used))
		;
	assert_int_equal(f->manual->used_idx, 4);
}

/* Indices run over 65535 many times. */
static void test_wrap(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[] = {text_buf(f, "x"), room_buf(f, 1)};
	struct virtq_used used;

	for (unsigned i = 0; i < 140000; i++) {
		uint16_t head = guest_add(f->manual, bufs, 2);

		assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
		virtq_push(f->q, &f->echo->chain, 1);
		virtq_notify(f->q);
		assert_true(guest_used(f->manual, &used));
		assert_int_equal(used.head, head);
		assert_int_equal(guest_interrupts(&f->dev, 2), 1);
	}
}

static void test_unpop(void **state)
{
	struct fixture *f = *state;
	struct guest_buf a[] = {text_buf(f, "first")}, b[] = {text_buf(f, "second")};
	uint16_t first = guest_add(f->manual, a, 1), second = guest_add(f->manual, b, 1);

	assert_true(virtq_has_work(f->q));
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
	assert_int_equal(f->echo->chain.head, second);
	assert_false(virtq_has_work(f->q));
	virtq_unpop(f->q, 2);
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
	assert_int_equal(f->echo->chain.head, first);
	assert_int_equal(f->echo->chain.read_bytes, 5);
}

static void test_push_many(void **state)
{
	struct fixture *f = *state;
	struct virtq_used many[16], used;
	struct guest_buf buf[] = {room_buf(f, 8)};

	for (unsigned i = 0; i < 16; i++) {
		guest_add(f->manual, buf, 1);
		assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
		many[i] = (struct virtq_used){f->echo->chain.head, i};
	}
	virtq_push_many(f->q, many, 16);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(guest_used(f->manual, &used));
		assert_int_equal(used.head, many[i].head);
		assert_int_equal(used.written, i);
	}
	assert_false(guest_used(f->manual, &used));
}

static void test_copy(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[] = {text_buf(f, "ab"), text_buf(f, "cde"), room_buf(f, 1),
				   room_buf(f, 4)};
	struct virtq_chain *chain = &f->echo->chain;
	char buf[16] = {0};

	guest_add(f->manual, bufs, 4);
	assert_int_equal(virtq_pop(f->q, chain), 1);
	assert_int_equal(virtq_chain_read(chain, 1, buf, 3), 3);
	assert_string_equal(buf, "bcd");
	assert_int_equal(virtq_chain_read(chain, 4, buf, 3), 1);
	assert_int_equal(virtq_chain_read(chain, 5, buf, 3), 0);
	assert_int_equal(virtq_chain_write(chain, 0, "12345678", 8), 5);
	assert_int_equal(virtq_chain_write(chain, 3, "xyz", 3), 2);
	assert_memory_equal(guest_at(&f->guest, bufs[3].gpa, 4), "23xy", 4);
}

static bool is_dirty(struct fixture *f, uint64_t gpa)
{
	uint64_t page = (uint64_t)((uint8_t *)guest_at(&f->guest, gpa, 1) -
				   f->guest.vm.mem.region[0].host) >>
			12;

	return f->guest.vm.mem.dirty[page / 64] >> page % 64 & 1;
}

static void test_dirty(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE _Atomic uint64_t *dirty = calloc(GUEST_RAM / 4096 / 64, 8);
	uint64_t area = guest_alloc(&f->guest, 5 * 4096, 4096);
	struct guest_buf bufs[] = {
		{area, 4096, false}, {area + 4096, 100, true}, {area + 2 * 4096, 2 * 4096, true}};

	f->guest.vm.mem.dirty = dirty;
	assert_int_equal(guest_request(f->gq, bufs, 3), 4096);
	assert_false(is_dirty(f, area));
	assert_true(is_dirty(f, area + 4096));
	assert_true(is_dirty(f, area + 2 * 4096));
	assert_false(is_dirty(f, area + 3 * 4096));
	assert_true(is_dirty(f, f->gq->used));
	assert_true(is_dirty(f, f->gq->used + 4 + 8 * 16));
	f->guest.vm.mem.dirty = NULL;
}

/* Broken rings. Each ends in "needs reset" and leaves the other things working. */

typedef void break_fn(struct fixture *f, struct guest_queue *q);

static uint64_t some_page(struct fixture *f)
{
	return guest_alloc(&f->guest, 4096, 4096);
}

static void break_head(struct fixture *f, struct guest_queue *q)
{
	guest_publish(q, q->size);
}

static void break_next(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, some_page(f), 8, VRING_DESC_F_NEXT, q->size);
	guest_publish(q, 0);
}

static void break_loop(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, some_page(f), 8, VRING_DESC_F_NEXT, 1);
	guest_set_desc(q, 1, some_page(f), 8, VRING_DESC_F_NEXT, 0);
	guest_publish(q, 0);
}

static void break_index(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, some_page(f), 8, 0, 0);
	q->avail_idx = (uint16_t)(q->avail_idx + q->size);
	guest_publish(q, 0);
}

static void break_empty(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, some_page(f), 0, 0, 0);
	guest_publish(q, 0);
}

static void break_order(struct fixture *f, struct guest_queue *q)
{
	struct guest_buf bufs[] = {room_buf(f, 4), text_buf(f, "late")};

	guest_add(q, bufs, 2);
}

static void break_border(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, GUEST_LOW - 4, 8, 0, 0);
	guest_publish(q, 0);
}

static void break_hole(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, 0xfee00000, 8, 0, 0);
	guest_publish(q, 0);
}

static void break_wrap(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, UINT64_MAX - 3, 8, 0, 0);
	guest_publish(q, 0);
}

static void break_huge(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, 0, UINT32_MAX, 0, 0);
	guest_publish(q, 0);
}

/* An indirect descriptor with the flags beside INDIRECT, for a table of len bytes. */
static struct vring_desc *add_table(struct fixture *f, struct guest_queue *q, uint32_t len,
				    uint16_t flags)
{
	uint64_t gpa = some_page(f);

	guest_set_desc(q, 0, gpa, len, VRING_DESC_F_INDIRECT | flags, 1);
	guest_publish(q, 0);
	return guest_at(&f->guest, gpa, 4096);
}

static void break_table_length(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 24, 0)[0] = (struct vring_desc){.addr = some_page(f), .len = 8};
}

static void break_table_empty(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 0, 0);
}

static void break_table_next(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 16, VRING_DESC_F_NEXT)[0] =
		(struct vring_desc){.addr = some_page(f), .len = 8};
}

static void break_table_nested(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 16, 0)[0] = (struct vring_desc){
		.addr = some_page(f), .len = 16, .flags = VRING_DESC_F_INDIRECT};
}

static void break_table_range(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 32, 0)[0] = (struct vring_desc){
		.addr = some_page(f), .len = 16, .flags = VRING_DESC_F_NEXT, .next = 2};
}

static void break_table_loop(struct fixture *f, struct guest_queue *q)
{
	add_table(f, q, 32, 0)[0] = (struct vring_desc){
		.addr = some_page(f), .len = 16, .flags = VRING_DESC_F_NEXT, .next = 0};
}

static void break_table_address(struct fixture *f, struct guest_queue *q)
{
	guest_set_desc(q, 0, GUEST_LOW - 16, 32, VRING_DESC_F_INDIRECT, 0);
	guest_publish(q, 0);
}

static void test_broken(void **state)
{
	static break_fn *const kinds[] = {break_head,	    break_next,		break_loop,
					  break_index,	    break_empty,	break_order,
					  break_border,	    break_hole,		break_wrap,
					  break_huge,	    break_table_length, break_table_empty,
					  break_table_next, break_table_nested, break_table_range,
					  break_table_loop, break_table_address};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct guest_buf bufs[] = {text_buf(f, "well"), room_buf(f, 4)};
		struct virtq_used used;

		guest_start(&f->dev, ~0ULL, 16);
		assert_int_equal(guest_request(f->gq, bufs, 2), 4);
		guest_interrupts(&f->dev, 0);
		kinds[i](f, f->gq);
		guest_kick_always(f->gq);
		guest_run(&f->guest);
		assert_true(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(guest_interrupts(&f->dev, 0), 1);
		/* Nothing is served until the driver resets the device. */
		assert_false(guest_used(f->gq, &used));
		guest_add(f->manual, bufs, 2);
		assert_int_equal(echo_serve(f->echo, f->q), -EPROTO);
		assert_false(virtq_has_work(f->q));
		virtq_push(f->q, &f->echo->chain, 0);
		assert_false(guest_used(f->manual, &used));
	}
}

/* What indirect descriptors are to a device that did not agree to them. */
static void test_indirect_not_negotiated(void **state)
{
	struct fixture *f = *state;

	guest_start(&f->dev, EVENT_IDX, 16);
	add_table(f, f->gq, 16, 0)[0] = (struct vring_desc){.addr = some_page(f), .len = 8};
	guest_kick_always(f->gq);
	guest_run(&f->guest);
	assert_true(guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[VIRTQ_IOV_MAX + 1];

	for (unsigned i = 0; i <= VIRTQ_IOV_MAX; i++)
		bufs[i] = (struct guest_buf){0, 16, false};
	guest_add_indirect(f->manual, bufs, VIRTQ_IOV_MAX + 1);
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), -EPROTO);
}

/* Many big pieces are more than a used entry can count. */
static void test_too_long(void **state)
{
	struct fixture *f = *state;
	struct guest_buf bufs[VIRTQ_IOV_MAX];

	/* 256 pieces of 16 MiB would be 4 GiB: the guest has 12 MiB a piece, 3 GiB together. */
	for (unsigned i = 0; i < VIRTQ_IOV_MAX; i++)
		bufs[i] = (struct guest_buf){0, GUEST_LOW, false};
	guest_add_indirect(f->manual, bufs, VIRTQ_IOV_MAX);
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), 1);
	assert_int_equal(f->echo->chain.read_bytes, VIRTQ_IOV_MAX * GUEST_LOW);
	/* With memory that is (pretended to be) larger it does not fit. Nothing is touched. */
	f->guest.vm.mem.region[0].size = 17ULL << 20;
	for (unsigned i = 0; i < VIRTQ_IOV_MAX; i++)
		bufs[i].len = 17U << 20;
	guest_add_indirect(f->manual, bufs, VIRTQ_IOV_MAX);
	assert_int_equal(virtq_pop(f->q, &f->echo->chain), -EPROTO);
	f->guest.vm.mem.region[0].size = GUEST_LOW;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_echo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_high_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_idx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unpop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_push_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dirty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indirect_not_negotiated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
