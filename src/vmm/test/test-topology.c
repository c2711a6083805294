/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's CPU topology: what is accepted, and APIC ids that encode it. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/x86/topology.h"

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		int r;
		struct topology want;
	} cases[] = {
		{"1", 0, {1, 1, 1}},
		{"254", 0, {1, 254, 1}},
		{"sockets=2,cores=4,threads=2", 0, {2, 4, 2}},
		{"threads=2,sockets=3", 0, {3, 1, 2}},
		{"sockets=127,threads=2", 0, {127, 1, 2}},
		{"0", -ERANGE, {0}},
		{"255", -ERANGE, {0}},
		{"sockets=2,cores=127,threads=2", -ERANGE, {0}},
		{"sockets=254,cores=254,threads=254", -ERANGE, {0}},
		{"cores=0", -ERANGE, {0}},
		{"cores=255", -ERANGE, {0}},
		{"", -EINVAL, {0}},
		{"four", -EINVAL, {0}},
		{"4,", -EINVAL, {0}},
		{"-1", -EINVAL, {0}},
		{"cores", -EINVAL, {0}},
		{"cores=", -EINVAL, {0}},
		{"cores=2x", -EINVAL, {0}},
		{"core=2", -EINVAL, {0}},
		{"coress=2", -EINVAL, {0}},
		{"=2", -EINVAL, {0}},
		{"4,cores=2", -EINVAL, {0}},
		{"cores=2 threads=2", -EINVAL, {0}},
	};
	char text[300];
	struct error err;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct topology before = {7, 8, 9};
		struct topology t = before;
		int r = topology_parse(cases[i].text, &t, &err);

		if (r != cases[i].r)
			fail_msg("\"%s\" gives %d, not %d", cases[i].text, r, cases[i].r);
		assert_memory_equal(&t, r ? &before : &cases[i].want, sizeof(t));
	}
	topology_parse("255", &(struct topology){0}, &err);
	assert_string_equal(err.text, "number of vCPUs 255 is out of range (1 to 254)");
	topology_parse("sockets=5,cores=6,threads=9", &(struct topology){0}, &err);
	assert_string_equal(err.text, "5 sockets x 6 cores x 9 threads are more than 254 vCPUs");
	memset(text, '=', sizeof(text));
	text[sizeof(text) - 1] = 0;
	assert_int_equal(topology_parse(text, &(struct topology){0}, &err), -EINVAL);
}

/* Every topology there can be: ids are unique, ascend, and their fields tell the place. */
static void check_ids(const struct topology *t)
{
	unsigned n = topology_vcpus(t);
	unsigned thread_bits = topology_thread_bits(t), shift = topology_package_shift(t);
	uint32_t last = 0;

	assert_true(1u << thread_bits >= t->threads);
	assert_true(1u << (shift - thread_bits) >= t->cores);
	for (unsigned i = 0; i < n; i++) {
		uint32_t id = topology_apic_id(t, i);
		unsigned thread = id & ((1u << thread_bits) - 1);
		unsigned core = (id & ((1u << shift) - 1)) >> thread_bits;
		unsigned socket = id >> shift;

		assert_true(!i || id > last);
		last = id;
		assert_true(thread < t->threads && core < t->cores && socket < t->sockets);
		assert_int_equal((socket * t->cores + core) * t->threads + thread, i);
	}
	/* What KVM has as ids on all kernels. */
	assert_true(last < 1024);
}

static void test_apic_ids(void **state)
{
	for (unsigned s = 1; s <= 254; s++)
		for (unsigned c = 1; s * c <= 254; c++)
			for (unsigned t = 1; s * c * t <= 254; t++)
				check_ids(&(struct topology){s, c, t});
}

static void test_known(void **state)
{
	const struct topology plain = {1, 4, 1}, odd = {2, 3, 2}, wide = {2, 65, 1};

	assert_int_equal(topology_apic_id(&plain, 3), 3);
	assert_int_equal(topology_package_shift(&plain), 2);
	assert_int_equal(topology_thread_bits(&odd), 1);
	assert_int_equal(topology_package_shift(&odd), 3);
	assert_int_equal(topology_apic_id(&odd, 6), 8);
	assert_int_equal(topology_apic_id(&odd, 11), 13);
	assert_int_equal(topology_apic_id(&wide, 129), 128 + 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_apic_ids),
		cmocka_unit_test(test_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
