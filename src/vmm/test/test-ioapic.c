/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC's registers, and the messages that its redirection entries become. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "vmm/ioapic.h"
#include "vmm/irq.h"
#include "vmm/test/guest-driver.h"

static int setup(void **state)
{
	static struct guest g;
	struct error err;

	guest_create(&g);
	*state = &g;
	return ioapic_create(&g.vm, &err);
}

static int teardown(void **state)
{
	struct guest *g = *state;

	ioapic_destroy(&g->vm);
	ioapic_destroy(&g->vm);
	guest_destroy(g);
	return 0;
}

static uint32_t get(struct guest *g, uint8_t reg)
{
	guest_write(g, IOAPIC_BASE, reg, 4);
	return (uint32_t)guest_read(g, IOAPIC_BASE + 0x10, 4);
}

static void set(struct guest *g, uint8_t reg, uint32_t value)
{
	guest_write(g, IOAPIC_BASE, reg, 4);
	guest_write(g, IOAPIC_BASE + 0x10, value, 4);
}

static void set_entry(struct guest *g, unsigned pin, uint64_t entry)
{
	set(g, (uint8_t)(0x11 + 2 * pin), (uint32_t)(entry >> 32));
	set(g, (uint8_t)(0x10 + 2 * pin), (uint32_t)entry);
}

static void test_registers(void **state)
{
	struct guest *g = *state;

	assert_int_equal(get(g, 0x01), 0x00170011);
	set(g, 0x01, 0);
	assert_int_equal(get(g, 0x01), 0x00170011);
	set(g, 0x00, 0xffffffff);
	assert_int_equal(get(g, 0x00), 0x0f000000);
	assert_int_equal(get(g, 0x02), 0);
	/* The select register reads back, other offsets read as zero. */
	guest_write(g, IOAPIC_BASE, 0xfff1ab, 4);
	assert_int_equal(guest_read(g, IOAPIC_BASE, 4), 0xab);
	assert_int_equal(guest_read(g, IOAPIC_BASE + 4, 4), 0);
	guest_write(g, IOAPIC_BASE + 4, 0x01, 4);
	assert_int_equal(guest_read(g, IOAPIC_BASE, 4), 0xab);
	/* Registers behind the last pin. */
	set(g, 0x40, 0x1234);
	set(g, 0xff, 0x1234);
	assert_int_equal(get(g, 0x40), 0);
	assert_int_equal(get(g, 0xff), 0);
	assert_int_equal(g->irq_updates, 0);
	assert_int_equal(guest_read(g, IOAPIC_BASE + 0x20, 4), 0xffffffff);
}

static void test_entries(void **state)
{
	struct guest *g = *state;
	uint64_t addr;
	uint32_t data;

	for (unsigned pin = 0; pin < IRQ_PINS; pin++) {
		assert_int_equal(get(g, (uint8_t)(0x10 + 2 * pin)), 0x10000);
		assert_false(ioapic_message(g->vm.ioapic, pin, &addr, &data));
		set_entry(g, pin, (uint64_t)pin << 56 | (0x30 + pin));
	}
	for (unsigned pin = 0; pin < IRQ_PINS; pin++) {
		assert_int_equal(get(g, (uint8_t)(0x11 + 2 * pin)), pin << 24);
		assert_true(ioapic_message(g->vm.ioapic, pin, &addr, &data));
		assert_int_equal(addr, 0xfee00000 | pin << 12);
		assert_int_equal(data, 0x30 + pin);
	}
	/* Two halves each, but for pin 0, whose destination 0 changed nothing. */
	assert_int_equal(g->irq_updates, 2 * IRQ_PINS - 1);
	set_entry(g, 5, 5ULL << 56 | 0x35);
	assert_int_equal(g->irq_updates, 2 * IRQ_PINS - 1);
	/* Delivery status and remote IRR are the chip's. */
	set(g, 0x10, 0xffffffff);
	assert_int_equal(get(g, 0x10), 0xffffafff);
}

static void test_messages(void **state)
{
	struct guest *g = *state;
	uint64_t addr;
	uint32_t data;

	/* Logical destination 0xa5, lowest priority, level: as an MSI has these bits. */
	set_entry(g, 4, 0xa5ULL << 56 | 1 << 15 | 1 << 11 | 1 << 8 | 0x41);
	assert_true(ioapic_message(g->vm.ioapic, 4, &addr, &data));
	assert_int_equal(addr, 0xfee00000 | 0xa5 << 12 | 1 << 2);
	assert_int_equal(data, 1 << 15 | 1 << 8 | 0x41);
	/* Destination 0x1234: its upper bits in 55..49 become address bits 11..5. */
	set_entry(g, 4, 0x34ULL << 56 | 0x12ULL << 49 | 0x41);
	assert_true(ioapic_message(g->vm.ioapic, 4, &addr, &data));
	assert_int_equal(addr, 0xfee00000 | 0x34 << 12 | 0x12 << 5);
	/* Nothing of it gets above 32 bits, where KVM would refuse it. */
	set_entry(g, 4, ~(1ULL << 16));
	assert_true(ioapic_message(g->vm.ioapic, 4, &addr, &data));
	assert_int_equal(addr >> 32, 0);
	assert_int_equal(data, 0x87ff);
	set(g, 0x18, 0x10041);
	assert_false(ioapic_message(g->vm.ioapic, 4, &addr, &data));
}

/* Destination 0x1234 as an entry has it, as a guest's MSI has it, and as KVM takes it. */
static void test_extended_destination(void **state)
{
	struct guest *g = *state;
	uint64_t addr;
	uint32_t data;

	set_entry(g, 4, 0x34ULL << 56 | 0x12ULL << 49 | 0x41);
	assert_true(ioapic_message(g->vm.ioapic, 4, &addr, &data));
	assert_int_equal(irq_msi_address(addr), 0x1200ULL << 32 | 0xfee34000);
	assert_int_equal(irq_msi_address(0xfee34fe4), 0x7f00ULL << 32 | 0xfee34004);
	/* Nothing to move; the remappable format is not touched. */
	assert_int_equal(irq_msi_address(0xfee3400c), 0xfee3400c);
	assert_int_equal(irq_msi_address(0x100fee34000), 0x100fee34000);
	assert_int_equal(irq_msi_address(0xfee34250), 0xfee34250);
}

static void test_saved_state(void **state)
{
	struct guest *g = *state;
	struct ioapic_state s;

	set_entry(g, 3, 0x0100000000000022);
	s = *ioapic_get(g->vm.ioapic);
	assert_int_equal(s.entry[3], 0x0100000000000022);
	assert_int_equal(ioapic_check(&s, NULL), 0);
	g->irq_updates = 0;
	s.entry[4] = 0x33;
	assert_int_equal(ioapic_set(g->vm.ioapic, &s), 0);
	assert_int_equal(g->irq_updates, 1);
	assert_int_equal(get(g, 0x18), 0x33);
	/* Bits that no guest can write. */
	s.entry[4] |= 1 << 14;
	assert_int_equal(ioapic_check(&s, NULL), -EBADMSG);
	s.entry[4] = 0;
	s.select = 0x100;
	assert_int_equal(ioapic_check(&s, NULL), -EBADMSG);
	s.select = 0;
	s.id = 1;
	assert_int_equal(ioapic_check(&s, NULL), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_extended_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(test_saved_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
