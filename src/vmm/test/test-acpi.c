/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables: sums and pointers hold, the contents are right, and iasl accepts each. */

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
#include "lib/process.h"
#include "vmm/dev/power.h"
#include "vmm/ioapic.h"
#include "vmm/memory.h"
#include "vmm/pci/pci.h"
#include "vmm/x86/acpi.h"

static const struct topology topologies[] = {
	{1, 1, 1}, {1, 2, 1}, {1, 4, 1}, {2, 2, 2}, {1, 254, 1}, {2, 127, 1}, {50, 5, 1},
};

static uint64_t get(const uint8_t *p, unsigned len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

struct tables {
	uint8_t data[ACPI_SIZE];
	size_t used;
};

static void build(struct tables *t, const struct topology *topology)
{
	int used = acpi_build(t->data, sizeof(t->data), ACPI_BASE, topology);

	assert_true(used > 0);
	t->used = (size_t)used;
}

/* The table at a guest address, checked. */
static const uint8_t *table(const struct tables *t, uint64_t gpa)
{
	const uint8_t *p = t->data + (gpa - ACPI_BASE);

	assert_in_range(gpa, ACPI_BASE, ACPI_BASE + t->used - 36);
	assert_in_range(get(p + 4, 4), 36, t->used - (gpa - ACPI_BASE));
	assert_int_equal(sum(p, get(p + 4, 4)), 0);
	return p;
}

static const uint8_t *xsdt(const struct tables *t)
{
	const uint8_t *p;

	assert_memory_equal(t->data, "RSD PTR ", 8);
	assert_int_equal(t->data[15], 2);
	assert_int_equal(sum(t->data, 20), 0);
	assert_int_equal(sum(t->data, 36), 0);
	assert_int_equal(get(t->data + 20, 4), 36);
	p = table(t, get(t->data + 24, 8));
	assert_memory_equal(p, "XSDT", 4);
	return p;
}

/* The table with the signature; the DSDT is found by way of the FADT. */
static const uint8_t *find(const struct tables *t, const char *signature)
{
	const uint8_t *x = xsdt(t);

	if (!strcmp(signature, "XSDT"))
		return x;
	if (!strcmp(signature, "DSDT"))
		return table(t, get(find(t, "FACP") + 140, 8));
	for (size_t at = 36; at < get(x + 4, 4); at += 8) {
		const uint8_t *p = table(t, get(x + at, 8));

		if (!memcmp(p, signature, 4))
			return p;
	}
	fail_msg("there is no %s", signature);
	return NULL;
}

static void test_fadt(void **state)
{
	struct tables t;
	const uint8_t *p;

	build(&t, &topologies[0]);
	p = find(&t, "FACP");
	assert_int_equal(get(p + 4, 4), 276);
	assert_int_equal(get(p + 40, 4), 0);
	assert_int_equal(get(p + 112, 4) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
	assert_int_equal(p[116], 1); /* reset register: a port */
	assert_int_equal(get(p + 120, 8), POWER_RESET);
	assert_int_equal(p[128], POWER_RESET_VALUE);
	assert_int_equal(get(p + 248, 8), POWER_SLEEP_CONTROL);
	assert_int_equal(get(p + 260, 8), POWER_SLEEP_STATUS);
	assert_memory_equal(find(&t, "DSDT"), "DSDT", 4);
}

/* One entry a vCPU with its id, in the form that can hold it, and the I/O APIC. */
static void check_madt(const struct topology *topology)
{
	struct tables t;
	const uint8_t *p, *end;
	unsigned cpus = 0, ioapics = 0;

	build(&t, topology);
	p = find(&t, "APIC");
	assert_int_equal(get(p + 36, 4), 0xfee00000);
	for (end = p + get(p + 4, 4), p += 44; p < end; p += p[1]) {
		uint32_t id = topology_apic_id(topology, cpus);

		switch (p[0]) {
		case 0:
			assert_int_equal(p[1], 8);
			assert_int_equal(p[2], cpus++);
			assert_int_equal(p[3], id);
			assert_int_equal(get(p + 4, 4), 1);
			break;
		case 9:
			assert_int_equal(p[1], 16);
			assert_int_equal(get(p + 4, 4), id);
			assert_in_range(id, 255, UINT32_MAX);
			assert_int_equal(get(p + 8, 4), 1);
			assert_int_equal(get(p + 12, 4), cpus++);
			break;
		case 1:
			ioapics++;
			assert_int_equal(p[1], 12);
			assert_int_equal(get(p + 4, 4), IOAPIC_BASE);
			assert_int_equal(get(p + 8, 4), 0);
			break;
		default:
			fail_msg("entry of type %u", p[0]);
		}
	}
	assert_ptr_equal(p, end);
	assert_int_equal(cpus, topology_vcpus(topology));
	assert_int_equal(ioapics, 1);
}

static void test_madt(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(topologies); i++)
		check_madt(&topologies[i]);
}

static void test_mcfg(void **state)
{
	struct tables t;
	const uint8_t *p;

	build(&t, &topologies[0]);
	p = find(&t, "MCFG");
	assert_int_equal(get(p + 4, 4), 60);
	assert_int_equal(get(p + 44, 8), PCI_ECAM_BASE);
	assert_int_equal(get(p + 52, 8), 0);
}

static void test_no_room(void **state)
{
	struct tables t;
	const struct topology full = {1, 254, 1};

	build(&t, &full);
	for (size_t size = 0; size < t.used; size += 13) {
		CLEANUP_FREE uint8_t *buf = malloc(size ? size : 1);

		assert_int_equal(acpi_build(buf, size, ACPI_BASE, &full), -ENOSPC);
	}
	assert_int_equal(acpi_build(t.data, t.used, ACPI_BASE, &full), t.used);
}

static void test_load(void **state)
{
	struct memory mem;
	struct error err;
	struct tables t;

	build(&t, &topologies[3]);
	assert_int_equal(memory_create(&mem, 16 << 20, 4096, false, &err), 0);
	assert_int_equal(acpi_load(&mem, &topologies[3], &err), 0);
	assert_memory_equal(memory_at(&mem, ACPI_BASE, t.used), t.data, t.used);
	memory_destroy(&mem);
}

/* What iasl makes of a table; it must have nothing to say against it. */
static char *disassemble(const uint8_t *p)
{
	const char *const argv[] = {"iasl", "-d", "table.dat", NULL};
	CLEANUP_FREE char *out = NULL;
	char *text = NULL;
	struct error err = {0};

	assert_int_equal(io_write_file("table.dat", p, get(p + 4, 4), &err), 0);
	unlink("table.dsl");
	if (process_run(&(struct process){.argv = argv}, &out, NULL, &err))
		fail_msg("%s", err.text);
	if (io_read_file("table.dsl", 1 << 20, &text, &err) < 0)
		fail_msg("%s", err.text);
	if (strstr(text, "rror") || strstr(text, "nvalid") || strstr(text, "ncorrect") ||
	    strstr(text, "Unknown"))
		fail_msg("iasl finds fault with %.4s:\n%s", (const char *)p, text);
	return text;
}

static void test_iasl(void **state)
{
	static const struct {
		const char *signature, *texts[9];
	} cases[] = {
		{"XSDT", {"Extended System Description Table"}},
		{"FACP",
		 {"Hardware Reduced (V5) : 1", "Reset Register Supported (V2) : 1",
		  "Address : 0000000000000602", "Value to cause reset : 01",
		  "Control Method Power Button (V1) : 1", "FADT Minor Revision : 04"}},
		{"APIC", {"I/O Apic ID", "Processor Enabled : 1", "PC-AT Compatibility : 0"}},
		{"MCFG", {"Base Address : 00000000E0000000"}},
		{"DSDT",
		 {"Device (PCI0)", "Device (COM1)", "Device (GED)", "Device (PWRB)", "Name (_S5",
		  "\"QEMU0001\"", "\"ACPI0013\"", "Notify (PWRB, 0x80)"}},
	};
	const char *const probe[] = {"iasl", "-v", NULL};
	char dir[] = "/tmp/wisp-test-XXXXXX";

	if (process_run(&(struct process){.argv = probe}, NULL, NULL, NULL)) {
		print_message("skipped: iasl is not installed\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(topologies); i++) {
		struct tables t;

		build(&t, &topologies[i]);
		for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
			CLEANUP_FREE char *text = NULL;

			/* Only the MADT knows the topology. */
			if (i && strcmp(cases[n].signature, "APIC"))
				continue;
			text = disassemble(find(&t, cases[n].signature));
			for (unsigned k = 0; cases[n].texts[k]; k++)
				if (!strstr(text, cases[n].texts[k]))
					fail_msg("%s has no \"%s\":\n%s", cases[n].signature,
						 cases[n].texts[k], text);
		}
	}
	unlink("table.dat");
	unlink("table.dsl");
	assert_int_equal(chdir("/"), 0);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fadt), cmocka_unit_test(test_madt),
		cmocka_unit_test(test_mcfg), cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_load), cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
