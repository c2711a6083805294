/* SPDX-License-Identifier: Apache-2.0 */
/* Address decoding: who gets an access, and what happens to those that nobody gets. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/bus.h"

/* A device that remembers its last access and answers reads with 0x5a. */
struct fake {
	unsigned reads, writes, len;
	uint64_t offset, value;
};

static void fake_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	struct fake *f = dev;

	f->reads++;
	f->offset = offset;
	f->len = len;
	memset(data, 0x5a, len);
}

static void fake_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	struct fake *f = dev;

	f->writes++;
	f->offset = offset;
	f->len = len;
	f->value = 0;
	memcpy(&f->value, data, len);
}

static const struct bus_ops ops = {.read = fake_read, .write = fake_write};

static int add(struct bus *bus, uint64_t base, uint64_t size, struct fake *f, const char *name,
	       struct error *err)
{
	return bus_add(bus,
		       &(struct bus_range){
			       .base = base, .size = size, .ops = &ops, .dev = f, .name = name},
		       err);
}

static uint64_t read_bus(struct bus *bus, uint64_t addr, unsigned len)
{
	uint64_t value = 0;

	bus_read(bus, addr, &value, len);
	return value;
}

static void test_empty(void **state)
{
	struct bus bus = {0};

	assert_int_equal(read_bus(&bus, 0, 4), 0xffffffff);
	assert_int_equal(read_bus(&bus, UINT64_MAX, 1), 0xff);
	assert_int_equal(read_bus(&bus, 8, 8), UINT64_MAX);
	bus_write(&bus, 0, "abcd", 4);
	bus_remove(&bus, 0);
	bus_done(&bus);
}

static void test_decode(void **state)
{
	struct bus bus = {0};
	struct fake a = {0}, b = {0};
	struct error err;

	assert_int_equal(add(&bus, 0x2000, 0x10, &b, "b", &err), 0);
	assert_int_equal(add(&bus, 0x1000, 0x1000, &a, "a", &err), 0);
	assert_int_equal(read_bus(&bus, 0x1000, 4), 0x5a5a5a5a);
	assert_int_equal(a.offset, 0);
	assert_int_equal(read_bus(&bus, 0x1ff8, 8), 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(a.offset, 0xff8);
	assert_int_equal(read_bus(&bus, 0x200f, 1), 0x5a);
	assert_int_equal(b.offset, 0xf);
	bus_write(&bus, 0x2002, "\x34\x12", 2);
	assert_int_equal(b.value, 0x1234);
	assert_int_equal(b.offset, 2);
	assert_int_equal(a.reads + b.reads + a.writes + b.writes, 4);
	bus_done(&bus);
	assert_int_equal(bus.count, 0);
}

/* What begins inside a range and ends outside belongs to nobody, neither do odd lengths. */
static void test_unclaimed(void **state)
{
	struct bus bus = {0};
	struct fake a = {0}, b = {0};
	struct error err;

	assert_int_equal(add(&bus, 0x1000, 0x10, &a, "a", &err), 0);
	assert_int_equal(add(&bus, 0x1010, 0x10, &b, "b", &err), 0);
	assert_int_equal(read_bus(&bus, 0xfff, 1), 0xff);
	assert_int_equal(read_bus(&bus, 0xfff, 2), 0xffff);
	assert_int_equal(read_bus(&bus, 0x100f, 2), 0xffff);
	assert_int_equal(read_bus(&bus, 0x101c, 8), UINT64_MAX);
	assert_int_equal(read_bus(&bus, 0x1020, 1), 0xff);
	bus_write(&bus, 0x100d, "abcd", 4);
	for (unsigned len = 1; len <= 8; len++) {
		unsigned before = a.reads;

		read_bus(&bus, 0x1000, len);
		assert_int_equal(a.reads - before, len == 1 || len == 2 || len == 4 || len == 8);
	}
	assert_int_equal(a.writes + b.reads + b.writes, 0);
	bus_done(&bus);
}

static void test_overlap(void **state)
{
	struct bus bus = {0};
	struct fake f;
	struct error err;
	static const struct {
		uint64_t base, size;
		int r;
	} cases[] = {
		{0x1000, 0x100, -EEXIST},
		{0xfff, 2, -EEXIST},
		{0x10ff, 1, -EEXIST},
		{0x1080, 1, -EEXIST},
		{0, 0x10000, -EEXIST},
		{0, UINT64_MAX, -EEXIST},
		{0xfff, 1, 0},
		{0x1100, 1, 0},
		{0x2000, 0, -EINVAL},
		{0, 0, -EINVAL},
		{UINT64_MAX, 2, -EINVAL},
		{UINT64_MAX - 7, 8, 0},
		{0x1001, UINT64_MAX, -EINVAL},
	};

	assert_int_equal(add(&bus, 0x1000, 0x100, &f, "first", &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(add(&bus, cases[i].base, cases[i].size, &f, "new", &err),
				 cases[i].r);
		if (i == 0)
			assert_string_equal(err.text,
					    "new: addresses 0x1000-0x10ff belong to first");
	}
	assert_int_equal(bus.count, 4);
	/* The last addresses there are. */
	assert_int_equal(read_bus(&bus, UINT64_MAX, 1), 0x5a);
	assert_int_equal(f.offset, 7);
	assert_int_equal(read_bus(&bus, UINT64_MAX, 2), 0xffff);
	bus_done(&bus);
}

/* Many ranges, added and removed out of order, stay sorted and findable. */
static void test_many(void **state)
{
	struct bus bus = {0};
	struct fake f[97] = {0};
	struct error err;

	for (unsigned i = 0; i < 97; i++) {
		unsigned n = i * 31 % 97;

		assert_int_equal(add(&bus, 0x1000 * n, 0x800, &f[n], "many", &err), 0);
	}
	for (unsigned i = 1; i < bus.count; i++)
		assert_true(bus.range[i - 1].base < bus.range[i].base);
	for (unsigned n = 0; n < 97; n += 2)
		bus_remove(&bus, 0x1000 * n);
	bus_remove(&bus, 0x1000 * 1 + 4); /* inside, but not its base */
	for (unsigned n = 0; n < 97; n++) {
		read_bus(&bus, 0x1000 * n + 0x7fc, 4);
		read_bus(&bus, 0x1000 * n + 0x800, 4);
		assert_int_equal(f[n].reads, n % 2);
	}
	bus_done(&bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),	  cmocka_unit_test(test_decode),
		cmocka_unit_test(test_unclaimed), cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
