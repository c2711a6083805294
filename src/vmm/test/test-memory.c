/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: regions around the PCI hole, checked access, dirty bits, refusals with numbers. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/memory.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define HIGH MEMORY_HIGH_START

static void create(struct memory *mem, uint64_t size)
{
	struct error err = {0};

	if (memory_create(mem, size, 4096, false, &err)) {
		print_message("skipped: %s\n", err.text);
		skip();
	}
}

static void test_regions(void **state)
{
	struct memory mem;

	create(&mem, 16 * MIB);
	assert_int_equal(mem.nregions, 1);
	assert_int_equal(mem.region[0].size, 16 * MIB);
	memory_destroy(&mem);
	assert_int_equal(mem.nregions, 0);
	memory_destroy(&mem);
	create(&mem, MEMORY_LOW_MAX);
	assert_int_equal(mem.nregions, 1);
	assert_null(memory_at(&mem, HIGH, 1));
	memory_destroy(&mem);
}

/* One page more than fits below the hole. */
static void test_hole(void **state)
{
	struct memory mem;
	uint8_t *low, *high;

	create(&mem, MEMORY_LOW_MAX + 4096);
	assert_int_equal(mem.nregions, 2);
	assert_int_equal(mem.region[1].gpa, HIGH);
	assert_int_equal(mem.region[1].size, 4096);
	assert_int_equal(mem.region[1].offset, MEMORY_LOW_MAX);
	low = memory_at(&mem, MEMORY_LOW_MAX - 1, 1);
	high = memory_at(&mem, HIGH, 4096);
	assert_ptr_equal(high, low + 1);
	/* Neighbours on the host, but not for the guest. */
	assert_null(memory_at(&mem, MEMORY_LOW_MAX - 1, 2));
	assert_null(memory_at(&mem, MEMORY_LOW_MAX, 1));
	assert_null(memory_at(&mem, HIGH - 1, 1));
	assert_null(memory_at(&mem, HIGH - 1, 2));
	assert_null(memory_at(&mem, HIGH, 4097));
	assert_null(memory_at(&mem, HIGH + 4095, 2));
	assert_non_null(memory_at(&mem, HIGH + 4095, 1));
	memory_destroy(&mem);
}

static void test_bounds(void **state)
{
	struct memory mem;
	uint8_t *base;

	create(&mem, 16 * MIB);
	base = memory_at(&mem, 0, 1);
	assert_ptr_equal(memory_at(&mem, 0, 16 * MIB), base);
	assert_ptr_equal(memory_at(&mem, 5, 16 * MIB - 5), base + 5);
	assert_null(memory_at(&mem, 5, 16 * MIB - 4));
	assert_null(memory_at(&mem, 0, 16 * MIB + 1));
	assert_null(memory_at(&mem, 0, UINT64_MAX));
	assert_null(memory_at(&mem, 1, UINT64_MAX));
	assert_null(memory_at(&mem, UINT64_MAX, 1));
	assert_null(memory_at(&mem, UINT64_MAX, UINT64_MAX));
	assert_null(memory_at(&mem, UINT64_MAX - 4095, 8192));
	/* No bytes: still an address that has to exist. */
	assert_ptr_equal(memory_at(&mem, 16 * MIB - 1, 0), base + 16 * MIB - 1);
	assert_null(memory_at(&mem, 16 * MIB, 0));
	memory_destroy(&mem);
}

static void test_copies(void **state)
{
	struct memory mem;
	char buf[8] = "keep";

	create(&mem, 16 * MIB);
	assert_int_equal(memory_write(&mem, 16 * MIB - 3, "abc", 3), 0);
	assert_int_equal(memory_read(&mem, 16 * MIB - 4, buf, 4), 0);
	assert_memory_equal(buf, "\0abc", 4);
	/* All or nothing. */
	assert_int_equal(memory_write(&mem, 16 * MIB - 3, "wxyz", 4), -EFAULT);
	assert_int_equal(memory_read(&mem, 16 * MIB - 3, buf, 4), -EFAULT);
	assert_memory_equal(buf, "\0abc", 4);
	assert_memory_equal(memory_at(&mem, 16 * MIB - 3, 3), "abc", 3);
	memory_destroy(&mem);
}

static unsigned count_dirty(const struct memory *mem)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < mem->size / 4096 / 64; i++)
		n += (unsigned)__builtin_popcountll(mem->dirty[i]);
	return n;
}

static bool is_dirty(const struct memory *mem, uint64_t page)
{
	return mem->dirty[page / 64] >> (page % 64) & 1;
}

static void test_dirty(void **state)
{
	struct memory mem;
	uint64_t high_page = MEMORY_LOW_MAX / 4096;

	create(&mem, MEMORY_LOW_MAX + MIB);
	memory_mark_dirty(&mem, 0, 1); /* nobody tracks */
	mem.dirty = calloc(mem.size / 4096 / 64, 8);
	assert_int_equal(memory_write(&mem, 5 * 4096 + 4095, "x", 1), 0);
	assert_true(is_dirty(&mem, 5));
	assert_int_equal(count_dirty(&mem), 1);
	assert_int_equal(memory_write(&mem, 63 * 4096 + 4095, "xy", 2), 0);
	assert_true(is_dirty(&mem, 63) && is_dirty(&mem, 64));
	memory_mark_dirty(&mem, 100 * 4096 + 1, 200 * 4096);
	assert_int_equal(count_dirty(&mem), 3 + 201);
	/* By place in the memfd: the page behind the last low one. */
	assert_int_equal(memory_write(&mem, HIGH, "x", 1), 0);
	assert_true(is_dirty(&mem, high_page));
	memory_mark_dirty(&mem, HIGH + MIB - 1, 1);
	assert_true(is_dirty(&mem, high_page + 255));
	assert_int_equal(count_dirty(&mem), 206);
	/* Nothing happened: reads, failed writes, no bytes, no such address. */
	memory_read(&mem, 0, &(char){0}, 1);
	memory_write(&mem, HIGH + MIB - 1, "xy", 2);
	memory_write(&mem, 4096, "", 0);
	memory_mark_dirty(&mem, UINT64_MAX, 2);
	assert_int_equal(count_dirty(&mem), 206);
	free((void *)mem.dirty);
	memory_destroy(&mem);
}

static void test_prefault(void **state)
{
	struct memory mem;
	struct error err;

	if (memory_create(&mem, 300 * MIB, 4096, true, &err))
		skip();
	memory_destroy(&mem);
}

static void test_refused(void **state)
{
	static const struct {
		uint64_t size, page;
		int r;
		const char *text;
	} cases[] = {
		{256 * MIB, 8192, -EINVAL, "page size must be 4K, 2M or 1G"},
		{256 * MIB, 0, -EINVAL, "page size must be 4K, 2M or 1G"},
		{16 * MIB - 4096, 4096, -EINVAL, "guest memory must be between 16 MiB and 32 TiB"},
		{0, 4096, -EINVAL, "guest memory must be between 16 MiB and 32 TiB"},
		{UINT64_MAX, 4096, -EINVAL, "guest memory must be between 16 MiB and 32 TiB"},
		{16 * MIB + 1, 4096, -EINVAL,
		 "guest memory of 16777217 bytes is no multiple of 4 KiB"},
		{257 * MIB, 2 * MIB, -EINVAL,
		 "guest memory of 269484032 bytes is no multiple of 2 MiB"},
		{2 * GIB + MIB, GIB, -EINVAL,
		 "guest memory of 2148532224 bytes is no multiple of 1 GiB"},
		{1ULL << 45, 4096, -ENOMEM, "guest memory of 33554432 MiB does not fit: "},
		{1ULL << 45, 2 * MIB, -ENOMEM, "guest memory needs 16777216 huge pages of 2 MiB, "},
		{1ULL << 45, GIB, -ENOMEM, "guest memory needs 32768 huge pages of 1 GiB, "},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct memory mem = {.fd = 77};
		struct error err = {0};

		assert_int_equal(memory_create(&mem, cases[i].size, cases[i].page, false, &err),
				 cases[i].r);
		if (strncmp(err.text, cases[i].text, strlen(cases[i].text)))
			fail_msg("\"%s\" does not begin with \"%s\"", err.text, cases[i].text);
		assert_int_equal(mem.fd, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_regions), cmocka_unit_test(test_hole),
		cmocka_unit_test(test_bounds),	cmocka_unit_test(test_copies),
		cmocka_unit_test(test_dirty),	cmocka_unit_test(test_prefault),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
