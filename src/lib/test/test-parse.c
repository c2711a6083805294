/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of what people type: each value whole, in range, or refused with the reason. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"

#define UNTOUCHED 0x5aa5
#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define TIB (1ULL << 40)

struct number_case {
	const char *text;
	int r;
	uint64_t value;
};

/* The value on success; on failure the output is untouched and the reason names the text. */
static void check_number(const struct number_case *c, int r, uint64_t value,
			 const struct error *err)
{
	if (r != c->r)
		print_message("\"%s\" gives %d, not %d\n", c->text, r, c->r);
	assert_int_equal(r, c->r);
	assert_int_equal(value, r ? UNTOUCHED : c->value);
	if (r)
		assert_non_null(strstr(err->text, c->text));
}

static void test_u64(void **state)
{
	static const struct number_case cases[] = {
		{"0", 0, 0},
		{"7", 0, 7},
		{"007", 0, 7},
		{"18446744073709551615", 0, UINT64_MAX},
		{"0xffffffffffffffff", 0, UINT64_MAX},
		{"0X1f", 0, 31},
		{"18446744073709551616", -ERANGE, 0},
		{"0x10000000000000000", -ERANGE, 0},
		{"99999999999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"-0", -EINVAL, 0},
		{"1a", -EINVAL, 0},
		{"0x", -EINVAL, 0},
		{"0xg", -EINVAL, 0},
		{"0x-1", -EINVAL, 0},
		{"0x0x1", -EINVAL, 0},
		{"x1", -EINVAL, 0},
		{"ff", -EINVAL, 0},
		{"1.0", -EINVAL, 0},
		{"1\n", -EINVAL, 0},
		{"99999999999999999999999999x", -EINVAL, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = UNTOUCHED;
		struct error err = {0};
		int r = parse_u64(cases[i].text, "value", 0, UINT64_MAX, &v, &err);

		check_number(&cases[i], r, v, &err);
	}
}

static void test_range(void **state)
{
	unsigned v = UNTOUCHED;
	struct error err;

	assert_int_equal(parse_uint("9", "port", 10, 20, &v, &err), -ERANGE);
	assert_string_equal(err.text, "port 9 is out of range (10 to 20)");
	assert_int_equal(parse_uint("21", "port", 10, 20, &v, &err), -ERANGE);
	assert_int_equal(parse_uint("4294967306", "port", 10, 20, &v, &err), -ERANGE);
	assert_int_equal(parse_uint("18446744073709551626", "port", 10, 20, &v, &err), -ERANGE);
	assert_string_equal(err.text, "port 18446744073709551626 is out of range (10 to 20)");
	assert_int_equal(v, UNTOUCHED);
	assert_int_equal(parse_uint("ten", "port", 10, 20, &v, &err), -EINVAL);
	assert_string_equal(err.text, "port \"ten\" is not a number");
	assert_int_equal(parse_uint("10", "port", 10, 20, &v, &err), 0);
	assert_int_equal(v, 10);
	assert_int_equal(parse_uint("0x14", "port", 10, 20, &v, &err), 0);
	assert_int_equal(v, 20);
	/* Nobody has to want the reason. */
	assert_int_equal(parse_uint("x", "port", 10, 20, &v, NULL), -EINVAL);
}

static void test_bool(void **state)
{
	static const char *const yes[] = {"on", "yes", "true", "1"};
	static const char *const no[] = {"off", "no", "false", "0"};
	static const char *const bad[] = {"", "On", "2", "on ", " on", "ye", "offf"};
	struct error err;
	bool v;

	for (unsigned i = 0; i < 4; i++) {
		v = false;
		assert_int_equal(parse_bool(yes[i], "x", &v, &err), 0);
		assert_true(v);
		assert_int_equal(parse_bool(no[i], "x", &v, &err), 0);
		assert_false(v);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_bool(bad[i], "ro", &v, &err), -EINVAL);
	assert_string_equal(err.text, "ro \"offf\" is neither on nor off");
}

static void test_size(void **state)
{
	static const struct number_case cases[] = {
		{"0", 0, 0},
		{"1", 0, MIB},
		{"1B", 0, 1},
		{"4k", 0, 4 * KIB},
		{"4K", 0, 4 * KIB},
		{"4KB", 0, 4 * KIB},
		{"4KiB", 0, 4 * KIB},
		{"4kib", 0, 4 * KIB},
		{"256 MiB", 0, 256 * MIB},
		{"3G", 0, 3 * GIB},
		{"16777215T", 0, 16777215 * TIB},
		{"16777216T", -ERANGE, 0},
		{"18446744073709551615B", 0, UINT64_MAX},
		{"18446744073709551616B", -ERANGE, 0},
		{"17592186044416", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},
		{"99999999999999999999G", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{"4 ", -EINVAL, 0},
		{"4  M", -EINVAL, 0},
		{" 4M", -EINVAL, 0},
		{"4M ", -EINVAL, 0},
		{"-4M", -EINVAL, 0},
		{"+4M", -EINVAL, 0},
		{"4.5G", -EINVAL, 0},
		{"0x10M", -EINVAL, 0},
		{"4P", -EINVAL, 0},
		{"4Mi", -EINVAL, 0},
		{"4MiBs", -EINVAL, 0},
		{"4MM", -EINVAL, 0},
		{"4iB", -EINVAL, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = UNTOUCHED;
		struct error err = {0};
		int r = parse_size(cases[i].text, MIB, &v, &err);

		check_number(&cases[i], r, v, &err);
	}
}

static void test_size_without_unit(void **state)
{
	struct error err;
	uint64_t v;

	assert_int_equal(parse_size("4096", 0, &v, &err), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(parse_size("2M", 0, &v, &err), 0);
	assert_int_equal(v, 2 * MIB);
}

static void test_format_size(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1025, "1025 B"},
		{256 * MIB, "256 MiB"},
		{3584 * MIB, "3584 MiB"},
		{1ULL << 40, "1 TiB"},
		{1ULL << 60, "1048576 TiB"},
		{UINT64_MAX, "18446744073709551615 B"},
	};
	char buf[32];

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t back;

		assert_string_equal(format_size(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
		assert_int_equal(parse_size(buf, 0, &back, NULL), 0);
		assert_int_equal(back, cases[i].bytes);
	}
	assert_string_equal(format_size(256 * MIB, buf, 5), "256 ");
}

static void test_cpulist(void **state)
{
	static const struct {
		const char *text, *canonical; /* canonical NULL: refused */
	} cases[] = {
		{"0", "0"},
		{"1023", "1023"},
		{"0-3,8,10-14:2", "0-3,8,10,12,14"},
		{"3,1,2", "1-3"},
		{"0-1,1-2", "0-2"},
		{"5-5", "5"},
		{"0-1023", "0-1023"},
		{"0-1023:1000", "0,1000"},
		{"0-3:1023", "0"},
		{"", NULL},
		{",", NULL},
		{"0,", NULL},
		{",0", NULL},
		{"0,,1", NULL},
		{"1024", NULL},
		{"0-1024", NULL},
		{"3-1", NULL},
		{"-1", NULL},
		{"1-", NULL},
		{"0-3:0", NULL},
		{"0-3:", NULL},
		{"3:1", NULL},
		{"1000-1001:18446744073709551615", NULL},
		{"0-3:1024", NULL},
		{"18446744073709551616", NULL},
		{"0 ", NULL},
		{" 0", NULL},
		{"0, 1", NULL},
		{"a", NULL},
		{"0x1", NULL},
		{"0\n", NULL},
	};
	char buf[64];

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		cpu_set_t set, before;
		struct error err = {0};
		int r;

		CPU_ZERO(&set);
		CPU_SET(77, &set);
		before = set;
		r = parse_cpulist(cases[i].text, &set, &err);
		if (cases[i].canonical) {
			assert_int_equal(r, 0);
			assert_string_equal(format_cpulist(&set, buf, sizeof(buf)),
					    cases[i].canonical);
		} else {
			if (r != -EINVAL)
				print_message("\"%s\" was taken\n", cases[i].text);
			assert_int_equal(r, -EINVAL);
			assert_true(CPU_EQUAL(&set, &before));
			assert_non_null(strstr(err.text, "CPU list"));
		}
	}
}

static void test_format_cpulist(void **state)
{
	cpu_set_t set;
	char buf[16];

	CPU_ZERO(&set);
	assert_string_equal(format_cpulist(&set, buf, sizeof(buf)), "");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu += 2)
		CPU_SET(cpu, &set);
	for (size_t size = 1; size <= sizeof(buf); size++) {
		format_cpulist(&set, buf, size);
		assert_in_range(strlen(buf), 0, size - 1);
		if (size > 3)
			assert_non_null(strstr(buf, "..."));
	}
	assert_string_equal(buf, "0,2,4,6,8,10...");
}

static void test_pci_address(void **state)
{
	static const struct {
		const char *text;
		struct pci_address want;
	} good[] = {
		{"0000:3b:00.1", {0, 0x3b, 0, 1}},
		{"3b:00.1", {0, 0x3b, 0, 1}},
		{"0:0:0.0", {0, 0, 0, 0}},
		{"ffffffff:ff:1f.7", {0xffffffff, 0xff, 0x1f, 7}},
		{"FFFF:AB:1F.7", {0xffff, 0xab, 0x1f, 7}},
	};
	static const char *const bad[] = {
		"",
		"3b",
		"3b:00",
		"3b:00.",
		"3b:00.8",
		"3b:20.0",
		"100:00.0",
		"1:100:00.0",
		"100000000:0:0.0",
		"0:0:0:0.0",
		":00.0",
		"3b:.0",
		"3b:00.0 ",
		" 3b:00.0",
		"3b:00.0.0",
		"-1:00.0",
		"0x3b:00.0",
		"3b:0x0.0",
		"3b:00.0x1",
		"3b:00.g",
		"3b:00:0",
		"3b.00.0",
		"0000:3b:00.1:",
		"10000000000000000:0.0",
	};
	struct pci_address a;
	struct error err;

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_pci_address(good[i].text, &a, &err), 0);
		assert_int_equal(a.domain, good[i].want.domain);
		assert_int_equal(a.bus, good[i].want.bus);
		assert_int_equal(a.device, good[i].want.device);
		assert_int_equal(a.function, good[i].want.function);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		a.domain = UNTOUCHED;
		if (parse_pci_address(bad[i], &a, &err) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_int_equal(a.domain, UNTOUCHED);
		assert_non_null(strstr(err.text, bad[i]));
	}
}

static void test_mac(void **state)
{
	static const char *const bad[] = {
		"",
		"02:00:5e:00:53",
		"02:00:5e:00:53:01:02",
		"02:00:5e:00:53:1",
		"02:00:5e:00:53:001",
		"02:00:5e:00:53:0g",
		"02-00-5e-00-53-01",
		"02:00:5e:00:53:01 ",
		" 02:00:5e:00:53:01",
		"02:00:5e:00:53:",
		"0x:00:5e:00:53:01",
		"02:00:5e:00:53:0x1",
		"01:00:5e:00:00:01",
		"ff:ff:ff:ff:ff:ff",
		"00:00:00:00:00:00",
		"02:00:5e::53:01",
		"-2:00:5e:00:53:01",
	};
	static const uint8_t want[6] = {0x02, 0x00, 0x5e, 0x00, 0x53, 0xAf};
	uint8_t mac[6] = {0};
	struct error err;

	assert_int_equal(parse_mac("02:00:5e:00:53:aF", mac, &err), 0);
	assert_memory_equal(mac, want, 6);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse_mac(bad[i], mac, &err) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_memory_equal(mac, want, 6);
		assert_non_null(strstr(err.text, bad[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_size_without_unit),
		cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_cpulist),
		cmocka_unit_test(test_format_cpulist),
		cmocka_unit_test(test_pci_address),
		cmocka_unit_test(test_mac),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
