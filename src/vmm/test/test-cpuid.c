/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's CPUID from made-up hosts of Intel's and AMD's kind, and the CPU models. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/model.h"

#define BIT(n) (1u << (n))

static void add(struct cpuid *c, uint32_t leaf, int subleaf, uint32_t eax, uint32_t ebx,
		uint32_t ecx, uint32_t edx)
{
	c->entry[c->count++] = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = subleaf < 0 ? 0 : (uint32_t)subleaf,
		.flags = subleaf < 0 ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx,
	};
}

/* Leaf 0xd of a CPU with AVX, AVX-512 and supervisor state 11, as KVM gives it. */
static void add_xsave(struct cpuid *c)
{
	add(c, 0xd, 0, 0xe7, 2696, 2696, 0);
	add(c, 0xd, 1, 0xf, 0, BIT(11), 0);
	add(c, 0xd, 2, 256, 576, 0, 0);
	add(c, 0xd, 5, 64, 1088, 0, 0);
	add(c, 0xd, 6, 512, 1152, 0, 0);
	add(c, 0xd, 7, 1024, 1664, 0, 0);
	add(c, 0xd, 11, 16, 0, 1, 0);
}

static void add_kvm(struct cpuid *c)
{
	add(c, 0x40000000, -1, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(c, 0x40000001, -1, 0x0100fefb, 0, 0, 0);
}

static struct cpuid intel(void)
{
	struct cpuid c = {0};

	add(&c, 0, -1, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
	add(&c, 1, -1, 0x000806f8, 0x12345678, 0x7ffefbff & ~BIT(31), 0x1fabfbff);
	add(&c, 4, 0, 0xfc004121, 0x02c0003f, 0x3f, 0); /* L1d, shared by two */
	add(&c, 4, 1, 0xfc004122, 0x01c0003f, 0x3f, 0);
	add(&c, 4, 2, 0xfc004143, 0x03c0003f, 0x7ff, 0);
	add(&c, 4, 3, 0xfc1fc163, 0x0380003f, 0x1bfff, 4);
	add(&c, 4, 4, 0, 0, 0, 0);
	add(&c, 7, 0, 1, 0xffffffff, 0xffffffff, 0xffffffff);
	add(&c, 7, 1, 0x1c30, 0, 0, 0);
	add(&c, 0xb, 0, 1, 2, 0x100, 7);
	add(&c, 0xb, 1, 7, 112, 0x201, 7);
	add_xsave(&c);
	add(&c, 0x1f, 0, 1, 2, 0x100, 7);
	add_kvm(&c);
	add(&c, 0x80000000, -1, 0x80000008, 0, 0, 0);
	add(&c, 0x80000001, -1, 0, 0, 0x121, 0x2c100800);
	add(&c, 0x80000002, -1, 'I', 'n', 't', 'l');
	add(&c, 0x80000008, -1, 0x3934, 0, 0, 0);
	return c;
}

/* topoext: caches are in leaf 0x8000001d, else only in 0x80000005 and 6. */
static struct cpuid amd(bool topoext)
{
	struct cpuid c = {0};

	add(&c, 0, -1, 0x10, 0x68747541, 0x444d4163, 0x69746e65); /* AuthenticAMD */
	add(&c, 1, -1, 0x00a00f11, 0, 0x7ed8320b, 0x178bfbff);
	add(&c, 7, 0, 0, 0x219c91a9, 0x0040069c, 0);
	add(&c, 0xb, 0, 1, 2, 0x100, 0);
	add_xsave(&c);
	add_kvm(&c);
	add(&c, 0x80000000, -1, 0x8000001f, 0, 0, 0);
	add(&c, 0x80000001, -1, 0, 0, 0x75c237ff, 0x2fd3fbff);
	add(&c, 0x80000005, -1, 1, 1, 0x20080140, 0x20080140); /* 32 KiB, 8 ways, 64 */
	add(&c, 0x80000006, -1, 1, 1, 0x02006140, 0x00408140); /* 512 KiB 8; 8 MiB 16 */
	add(&c, 0x80000008, -1, 0x3030, 0x111ef657, 0x0030703f, 0);
	if (topoext) {
		add(&c, 0x8000001d, 0, 0x4121, 0x01c0003f, 0x3f, 0);
		add(&c, 0x8000001d, 1, 0x4122, 0x01c0003f, 0x3f, 0);
		add(&c, 0x8000001d, 2, 0x4143, 0x01c0003f, 0x3ff, 2);
		add(&c, 0x8000001d, 3, 0x3c163, 0x03c0003f, 0x7fff, 1);
		add(&c, 0x8000001d, 4, 0, 0, 0, 0);
	}
	add(&c, 0x8000001e, -1, 77, 0x177, 0x777, 9);
	return c;
}

static const struct topology topology_2x3x2 = {2, 3, 2};

/* Type, level and flags of the made-up caches. */
static const uint32_t cache_low[] = {0x121, 0x122, 0x143, 0x163};

static void configure(struct cpuid *c, const struct topology *t)
{
	const struct cpuid_params params = {
		.topology = t, .tsc_khz = 2500000, .invariant_tsc = true, .tsc_deadline = true};

	cpuid_configure(c, &params);
	/* No leaf twice: KVM and the guest may each take another one. */
	for (uint32_t i = 0; i < c->count; i++)
		for (uint32_t k = 0; k < i; k++)
			assert_true(c->entry[i].function != c->entry[k].function ||
				    c->entry[i].index != c->entry[k].index);
}

static const struct kvm_cpuid_entry2 *leaf(struct cpuid *c, uint32_t function, uint32_t subleaf)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(c, function, subleaf);

	assert_non_null(e);
	return e;
}

static void test_find(void **state)
{
	struct cpuid c = intel();

	assert_int_equal(leaf(&c, 4, 3)->edx, 4);
	/* A leaf without subleaves is found by any. */
	assert_int_equal(leaf(&c, 1, 9)->eax, 0x000806f8);
	assert_null(cpuid_find(&c, 4, 5));
	assert_null(cpuid_find(&c, 2, 0));
}

static void test_features(void **state)
{
	struct cpuid c = intel();
	const struct topology one = {1, 1, 1};
	struct cpuid_params params = {.topology = &one};
	const struct kvm_cpuid_entry2 *e;

	configure(&c, &topology_2x3x2);
	e = leaf(&c, 1, 0);
	assert_int_equal(e->ecx >> 31, 1);
	assert_true(e->ecx & BIT(21) && e->ecx & BIT(24));
	assert_true(e->edx & BIT(28));
	/* CLFLUSH size stays, 8 ids in a package. */
	assert_int_equal(e->ebx, 0x00085600);
	c = intel();
	cpuid_configure(&c, &params);
	e = leaf(&c, 1, 0);
	assert_int_equal(e->ecx & BIT(24), 0);
	assert_int_equal(e->edx & BIT(28), 0);
	/* Nothing is said of a clock that nobody knows. */
	assert_null(cpuid_find(&c, 0x15, 0));
	assert_null(cpuid_find(&c, 0x40000010, 0));
	assert_null(cpuid_find(&c, 0x80000007, 0));
}

static void test_clock(void **state)
{
	struct cpuid c = intel();
	const struct kvm_cpuid_entry2 *e;

	configure(&c, &topology_2x3x2);
	e = leaf(&c, 0x15, 0);
	assert_int_equal((uint64_t)e->ecx * e->ebx / e->eax, 2500000000);
	assert_int_equal(leaf(&c, 0x16, 0)->eax, 2500);
	assert_int_equal(leaf(&c, 0x40000010, 0)->eax, 2500000);
	assert_int_equal(leaf(&c, 0x40000010, 0)->ebx, 1000000);
	assert_int_equal(leaf(&c, 0x40000000, 0)->eax, 0x40000010);
	assert_true(leaf(&c, 0x80000007, 0)->edx & BIT(8));
	assert_int_equal(leaf(&c, 0, 0)->eax, 0x1f);
	assert_int_equal(leaf(&c, 0x80000000, 0)->eax, 0x80000008);
}

static void test_hypervisor(void **state)
{
	struct cpuid c = intel();
	struct cpuid_params params = {.topology = &topology_2x3x2, .ext_dest_id = true};
	uint32_t features;

	cpuid_configure(&c, &params);
	features = leaf(&c, 0x40000001, 0)->eax;
	assert_int_equal(features & (BIT(4) | BIT(10) | BIT(14)), 0);
	assert_true(features & BIT(15) && features & BIT(3) && features & BIT(24));
	assert_true(features & BIT(6));
	params.ext_dest_id = false;
	params.eoi_exits = true;
	cpuid_configure(&c, &params);
	assert_int_equal(leaf(&c, 0x40000001, 0)->eax & (BIT(6) | BIT(15)), 0);
}

/* Sharing and cores of leaf 4, levels of leaves 0xb and 0x1f. */
static void test_intel_topology(void **state)
{
	struct cpuid c = intel();

	configure(&c, &topology_2x3x2);
	for (uint32_t i = 0; i < 4; i++) {
		const struct kvm_cpuid_entry2 *e = leaf(&c, 4, i);

		assert_int_equal(e->eax >> 14 & 0xfff, i < 3 ? 1 : 7);
		assert_int_equal(e->eax >> 26, 3);
		assert_int_equal(e->eax & 0x3fff, cache_low[i]);
	}
	assert_int_equal(leaf(&c, 4, 4)->eax, 0);
	for (uint32_t l = 0xb; l <= 0x1f; l += 0x14) {
		assert_int_equal(leaf(&c, l, 0)->eax, 1);
		assert_int_equal(leaf(&c, l, 0)->ebx, 2);
		assert_int_equal(leaf(&c, l, 0)->ecx, 0x100);
		assert_int_equal(leaf(&c, l, 1)->eax, 3);
		assert_int_equal(leaf(&c, l, 1)->ebx, 6);
		assert_int_equal(leaf(&c, l, 1)->ecx, 0x201);
		assert_int_equal(leaf(&c, l, 2)->ebx, 0);
		assert_int_equal(leaf(&c, l, 2)->ecx, 2);
	}
	assert_null(cpuid_find(&c, 0x8000001e, 0));
}

static void test_apic_ids(void **state)
{
	struct cpuid c = intel(), a = amd(true);

	configure(&c, &topology_2x3x2);
	configure(&a, &topology_2x3x2);
	for (unsigned i = 0; i < 12; i++) {
		uint32_t id = topology_apic_id(&topology_2x3x2, i);

		cpuid_set_apic_id(&c, &topology_2x3x2, i);
		cpuid_set_apic_id(&a, &topology_2x3x2, i);
		assert_int_equal(leaf(&c, 1, 0)->ebx, id << 24 | 0x00085600);
		for (uint32_t sub = 0; sub < 3; sub++) {
			assert_int_equal(leaf(&c, 0xb, sub)->edx, id);
			assert_int_equal(leaf(&c, 0x1f, sub)->edx, id);
		}
		assert_int_equal(leaf(&a, 0x8000001e, 0)->eax, id);
		assert_int_equal(leaf(&a, 0x8000001e, 0)->ebx, 1 << 8 | i / 2 % 3);
		assert_int_equal(leaf(&a, 0x8000001e, 0)->ecx, i / 6);
	}
}

static void test_amd_topology(void **state)
{
	for (int topoext = 0; topoext < 2; topoext++) {
		struct cpuid c = amd(topoext);
		const struct kvm_cpuid_entry2 *e;

		configure(&c, &topology_2x3x2);
		assert_true(leaf(&c, 0x80000001, 0)->ecx & BIT(22));
		assert_true(leaf(&c, 0x80000001, 0)->ecx & BIT(1));
		assert_int_equal(leaf(&c, 0x80000008, 0)->ecx, 5 | 3 << 12);
		for (uint32_t i = 0; i < 4; i++) {
			e = leaf(&c, 0x8000001d, i);
			assert_int_equal(e->eax >> 14 & 0xfff, i < 3 ? 1 : 7);
			assert_int_equal(e->eax & 0x3fff, cache_low[i]);
			assert_int_equal(e->ebx & 0xfff, 63);
		}
		assert_int_equal(leaf(&c, 0x8000001d, 4)->eax, 0);
		/* Ways times line times sets is the size. */
		e = leaf(&c, 0x8000001d, 2);
		assert_int_equal(((e->ebx >> 22) + 1) * 64 * (e->ecx + 1), 512 << 10);
		e = leaf(&c, 0x8000001d, 3);
		assert_int_equal(((e->ebx >> 22) + 1) * 64 * (e->ecx + 1),
				 topoext ? 32 << 20 : 8 << 20);
		assert_null(cpuid_find(&c, 0x1f, 0));
		assert_int_equal(leaf(&c, 0xb, 1)->ebx, 6);
	}
}

/* A host CPUID that lacks nearly everything breaks nothing. */
static void test_poor_host(void **state)
{
	struct cpuid c = {0};
	const struct topology big = {1, 254, 1};

	add(&c, 0, -1, 1, 0x756e6547, 0x6c65746e, 0x49656e69);
	configure(&c, &big);
	assert_int_equal(leaf(&c, 0, 0)->eax, 0x16);
	assert_int_equal(leaf(&c, 1, 0)->ebx >> 16 & 0xff, 255);
	c = amd(false);
	configure(&c, &big);
	assert_int_equal(leaf(&c, 0x80000008, 0)->ecx, 253 | 8 << 12);
	/* A full table is not written past. */
	c = intel();
	while (c.count < CPUID_ENTRIES_MAX)
		add(&c, 0x1000 + c.count, -1, 0, 0, 0, 0);
	configure(&c, &big);
	assert_true(c.count <= CPUID_ENTRIES_MAX);
}

static void test_host_model(void **state)
{
	struct cpuid c = intel(), before = c;
	struct error err;

	assert_int_equal(model_apply(&c, "host", &err), 0);
	assert_memory_equal(&c, &before, sizeof(c));
}

static void test_levels(void **state)
{
	static const struct {
		const char *name;
		uint32_t xcr0, size;
		bool avx, avx2, avx512;
	} cases[] = {
		{"x86-64-v2", 0x3, 576, false, false, false},
		{"x86-64-v3", 0x7, 832, true, true, false},
		{"x86-64-v4", 0xe7, 2688, true, true, true},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cpuid c = intel();
		struct error err;

		assert_int_equal(model_apply(&c, cases[i].name, &err), 0);
		assert_int_equal(leaf(&c, 0xd, 0)->eax, cases[i].xcr0);
		assert_int_equal(leaf(&c, 0xd, 0)->ecx, cases[i].size);
		assert_int_equal(leaf(&c, 0xd, 0)->ebx, cases[i].size);
		assert_int_equal(!!(leaf(&c, 1, 0)->ecx & BIT(28)), cases[i].avx);
		assert_int_equal(!!(leaf(&c, 7, 0)->ebx & BIT(5)), cases[i].avx2);
		assert_int_equal(!!(leaf(&c, 7, 0)->ebx & BIT(16)), cases[i].avx512);
		assert_int_equal(leaf(&c, 0xd, 2)->eax, cases[i].avx ? 256 : 0);
		assert_int_equal(leaf(&c, 0xd, 6)->eax, cases[i].avx512 ? 512 : 0);
		/* No supervisor states, no subleaf that leaf 7 does not announce. */
		assert_int_equal(leaf(&c, 0xd, 1)->ecx, 0);
		assert_int_equal(leaf(&c, 0xd, 11)->eax, 0);
		assert_int_equal(leaf(&c, 7, 0)->eax, 0);
		/* Each has what its level is made of: SSE4.2, POPCNT, CMPXCHG16B, LAHF. */
		assert_int_equal(leaf(&c, 1, 0)->ecx & (BIT(20) | BIT(23) | BIT(13)),
				 BIT(20) | BIT(23) | BIT(13));
		assert_true(leaf(&c, 0x80000001, 0)->ecx & BIT(0));
		/* Mitigations stay. */
		assert_int_equal(leaf(&c, 7, 0)->edx & (BIT(26) | BIT(27) | BIT(31)),
				 BIT(26) | BIT(27) | BIT(31));
	}
}

/* A level never gives what the host has not. */
static void test_levels_only_take(void **state)
{
	static const char *const names[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};

	for (unsigned i = 0; i < 3; i++) {
		struct cpuid c = amd(true), host = c;
		struct error err;

		assert_int_equal(model_apply(&c, names[i], &err), 0);
		for (uint32_t k = 0; k < c.count; k++) {
			const struct kvm_cpuid_entry2 *e = &c.entry[k], *h = &host.entry[k];

			if (e->function == 0xd)
				continue;
			assert_int_equal((e->eax & ~h->eax) | (e->ebx & ~h->ebx) |
						 (e->ecx & ~h->ecx) | (e->edx & ~h->edx),
					 0);
		}
	}
}

static void test_mask_file(void **state)
{
	struct cpuid c = intel();
	struct error err;

	assert_int_equal(model_apply_text(&c, "m",
					  "# without AVX-512\n\n"
					  "0x7 0 ebx 0x200 # and more\n"
					  "  0xd\t0 eax 7\r\n"
					  "0x80000001 0 edx 0\n"
					  "0x99 0 eax 0",
					  &err),
			 0);
	assert_int_equal(leaf(&c, 7, 0)->ebx, 0x200);
	assert_int_equal(leaf(&c, 7, 0)->ecx, 0xffffffff);
	assert_int_equal(leaf(&c, 7, 1)->eax, 0x1c30);
	assert_int_equal(leaf(&c, 0x80000001, 0)->edx, 0);
	assert_int_equal(leaf(&c, 0xd, 0)->eax, 7);
	assert_int_equal(leaf(&c, 0xd, 0)->ecx, 832);
	assert_int_equal(leaf(&c, 0xd, 6)->eax, 0);
	/* Supervisor states were not named. */
	assert_int_equal(leaf(&c, 0xd, 1)->ecx, BIT(11));
	assert_int_equal(leaf(&c, 0xd, 11)->eax, 16);
	assert_int_equal(model_apply_text(&c, "m", "", &err), 0);
}

static void test_bad_masks(void **state)
{
	static const struct {
		const char *text, *where;
	} cases[] = {
		{"7 0 ebx", "m:1: \"7 0 ebx\" is not like"},
		{"# fine\n7 0 ebx 1\n7 0 esi 1\n", "m:3: \"7 0 esi 1\""},
		{"7 0 ebx 1 2", "m:1: "},
		{"7 0 ebx 0x100000000", "m:1: "},
		{"7 0 ebx -1", "m:1: "},
		{"-7 0 ebx 1", "m:1: "},
		{"0x700000000 0 ebx 1", "m:1: "},
		{"99999999999999999999 0 ebx 1", "m:1: "},
		{"7 0 ebxx 1", "m:1: "},
		{"seven 0 ebx 1", "m:1: "},
		{"\n\nx", "m:3: "},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cpuid c = intel(), before = c;
		struct error err = {0};

		assert_int_equal(model_apply_text(&c, "m", cases[i].text, &err), -EINVAL);
		if (strncmp(err.text, cases[i].where, strlen(cases[i].where)))
			fail_msg("\"%s\"", err.text);
		assert_memory_equal(&c, &before, sizeof(c));
	}
}

static void test_model_names(void **state)
{
	struct cpuid c = intel();
	char path[] = "/tmp/wisp-test-XXXXXX";
	int fd = mkstemp(path);
	struct error err;

	assert_int_equal(model_apply(&c, "x86-64-v5", &err), -ENOENT);
	assert_non_null(strstr(err.text, "CPU model \"x86-64-v5\" is none of host, x86-64-v2, "));
	assert_int_equal(io_write_full(fd, "1 0 ecx 0\nbad\n", 14), 0);
	assert_int_equal(model_apply(&c, path, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":2: \"bad\""));
	assert_int_equal(ftruncate(fd, 10), 0);
	assert_int_equal(model_apply(&c, path, &err), 0);
	assert_int_equal(leaf(&c, 1, 0)->ecx, 0);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_hypervisor),
		cmocka_unit_test(test_intel_topology),
		cmocka_unit_test(test_apic_ids),
		cmocka_unit_test(test_amd_topology),
		cmocka_unit_test(test_poor_host),
		cmocka_unit_test(test_host_model),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_levels_only_take),
		cmocka_unit_test(test_mask_file),
		cmocka_unit_test(test_bad_masks),
		cmocka_unit_test(test_model_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
