/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI host: configuration space, BARs that move, MSI-X. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/pci/msix.h"
#include "vmm/test/guest-driver.h"

#define BAR_SIZE 0x10000

struct card {
	struct pci_function fn;
	uint32_t reg; /* what BAR 2 holds at every offset */
	unsigned maps, unmaps;
};

static void card_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	memset(data, 0, len);
	memcpy(data, &((struct card *)dev)->reg, len < 4 ? len : 4);
}

static void card_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	memcpy(&((struct card *)dev)->reg, data, len < 4 ? len : 4);
}

static const struct bus_ops card_ops = {.read = card_read, .write = card_write};

static void card_moved(void *dev, uint64_t addr, bool mapped)
{
	struct card *card = dev;

	if (mapped)
		card->maps++;
	else
		card->unmaps++;
}

static void card_create(struct card *card, struct guest *g, uint64_t size)
{
	*card = (struct card){.reg = 0x600dcafe};
	pci_function_init(&card->fn, &g->vm, "card", 0x1234, 0x5678, 0x9abc, 0x020100, 7);
	card->fn.bar[2] =
		(struct pci_bar){.size = size, .ops = &card_ops, .dev = card, .moved = card_moved};
	assert_int_equal(msix_create(&card->fn, 4, 3, NULL), 0);
}

static uint32_t config(struct guest *g, unsigned reg, unsigned len)
{
	return guest_config_read(g, 1, reg, len);
}

static void set_config(struct guest *g, unsigned reg, uint32_t value, unsigned len)
{
	guest_config_write(g, 1, reg, value, len);
}

struct fixture {
	struct guest g;
	struct card card;
};

static void begin(struct fixture *f)
{
	guest_create(&f->g);
	card_create(&f->card, &f->g, BAR_SIZE);
	assert_int_equal(pci_add(&f->card.fn, NULL), 0);
}

static void end(struct fixture *f)
{
	pci_remove(&f->card.fn);
	guest_destroy(&f->g);
}

static void test_header(void **state)
{
	struct fixture f;

	begin(&f);
	assert_int_equal(guest_config_read(&f.g, 0, PCI_CLASS_REVISION + 1, 2), 0x0000);
	assert_int_equal(guest_config_read(&f.g, 0, PCI_CLASS_DEVICE, 2), 0x0600);
	assert_int_equal(f.card.fn.slot, 1);
	assert_int_equal(config(&f.g, PCI_VENDOR_ID, 4), 0x56781234);
	assert_int_equal(config(&f.g, PCI_CLASS_REVISION, 4), 0x02010007);
	assert_int_equal(config(&f.g, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x9abc1234);
	assert_int_equal(config(&f.g, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(config(&f.g, PCI_INTERRUPT_PIN, 1), 0);
	assert_int_equal(config(&f.g, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	set_config(&f.g, PCI_VENDOR_ID, 0, 4);
	assert_int_equal(config(&f.g, PCI_VENDOR_ID, 4), 0x56781234);
	set_config(&f.g, PCI_COMMAND, 0xffff, 2);
	assert_int_equal(config(&f.g, PCI_COMMAND, 2),
			 PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	/* The extended space is there and empty; so is what lies across its beginning. */
	assert_int_equal(config(&f.g, 0x100, 4), 0);
	assert_int_equal(config(&f.g, 0xffc, 4), 0);
	assert_int_equal(config(&f.g, 0xfe, 4), 0);
	/* Other functions and slots are not. */
	assert_int_equal(guest_read(&f.g, PCI_ECAM_BASE + 0x9000, 4), 0xffffffff);
	assert_int_equal(guest_config_read(&f.g, 2, 0, 4), 0xffffffff);
	assert_int_equal(guest_config_read(&f.g, 31, 0, 2), 0xffff);
	assert_int_equal(guest_read(&f.g, PCI_ECAM_BASE + (1 << 20), 4), 0xffffffff);
	end(&f);
}

static uint32_t port_read(struct guest *g, uint16_t port, unsigned len)
{
	uint32_t v = 0;

	bus_read(&g->vm.pio, port, &v, len);
	return v;
}

static void port_write(struct guest *g, uint16_t port, uint32_t v, unsigned len)
{
	bus_write(&g->vm.pio, port, &v, len);
}

/* The ports of old show the first 256 bytes of what ECAM does. */
static void test_ports(void **state)
{
	struct fixture f;

	begin(&f);
	/* How Linux looks for them: a byte to the last port is not for the register. */
	port_write(&f.g, 0xcf8, 0x80000000, 4);
	port_write(&f.g, 0xcfb, 1, 1);
	assert_int_equal(port_read(&f.g, 0xcf8, 4), 0x80000000);
	assert_int_equal(port_read(&f.g, 0xcfc, 4), 0x0d578086);
	port_write(&f.g, 0xcf8, 0x80000800 | PCI_COMMAND, 4);
	port_write(&f.g, 0xcfc, PCI_COMMAND_MASTER, 2);
	assert_int_equal(config(&f.g, PCI_COMMAND, 2), PCI_COMMAND_MASTER);
	assert_int_equal(port_read(&f.g, 0xcfc, 1), PCI_COMMAND_MASTER);
	assert_int_equal(port_read(&f.g, 0xcfe, 2), PCI_STATUS_CAP_LIST);
	/* Bits that do not exist, a read of a part, nothing enabled, and nobody there. */
	port_write(&f.g, 0xcf8, 0xff000803, 4);
	assert_int_equal(port_read(&f.g, 0xcf8, 4), 0x80000800);
	assert_int_equal(port_read(&f.g, 0xcf8, 2), 0xffff);
	port_write(&f.g, 0xcf8, 0x00000800, 4);
	assert_int_equal(port_read(&f.g, 0xcfc, 4), 0xffffffff);
	port_write(&f.g, 0xcfc, 0xffff, 2);
	port_write(&f.g, 0xcf8, 0x80000900, 4);
	assert_int_equal(port_read(&f.g, 0xcfc, 4), 0xffffffff);
	port_write(&f.g, 0xcf8, 0x80010800, 4);
	assert_int_equal(port_read(&f.g, 0xcfc, 4), 0xffffffff);
	port_write(&f.g, 0xcfc, 0xffffffff, 4);
	assert_int_equal(config(&f.g, PCI_COMMAND, 2), PCI_COMMAND_MASTER);
	end(&f);
}

static void test_bar(void **state)
{
	struct fixture f;
	uint32_t bar = PCI_BASE_ADDRESS_2;
	uint64_t at;

	begin(&f);
	at = config(&f.g, bar, 4);
	assert_true(at >= PCI_MMIO_BASE && at + BAR_SIZE <= PCI_MMIO_BASE + PCI_MMIO_SIZE);
	assert_int_equal(at % BAR_SIZE, 0);
	/* Not decoded before it is enabled. */
	assert_int_equal(guest_read(&f.g, at, 4), 0xffffffff);
	set_config(&f.g, bar, 0xffffffff, 4);
	assert_int_equal(config(&f.g, bar, 4), ~(uint32_t)(BAR_SIZE - 1));
	set_config(&f.g, bar, (uint32_t)at, 4);
	assert_int_equal(f.card.maps, 0);
	set_config(&f.g, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(f.card.maps, 1);
	assert_int_equal(guest_read(&f.g, at + BAR_SIZE - 4, 4), 0x600dcafe);
	guest_write(&f.g, at, 0x1234, 4);
	assert_int_equal(f.card.reg, 0x1234);
	/* BARs that do not exist are zero and stay so. */
	set_config(&f.g, PCI_BASE_ADDRESS_1, 0xffffffff, 4);
	assert_int_equal(config(&f.g, PCI_BASE_ADDRESS_1, 4), 0);
	/* Sizing with decoding on. */
	set_config(&f.g, bar, 0xffffffff, 4);
	assert_int_equal(config(&f.g, bar, 4), ~(uint32_t)(BAR_SIZE - 1));
	assert_int_equal(guest_read(&f.g, at, 4), 0xffffffff);
	set_config(&f.g, bar, (uint32_t)at, 4);
	assert_int_equal(guest_read(&f.g, at, 4), 0x1234);
	/* A move, also to a place that overlaps the old one by bytes of a write. */
	set_config(&f.g, bar, (uint32_t)at + 8 * BAR_SIZE, 4);
	assert_int_equal(guest_read(&f.g, at, 4), 0xffffffff);
	assert_int_equal(guest_read(&f.g, at + 8 * BAR_SIZE, 4), 0x1234);
	set_config(&f.g, bar + 2, (uint32_t)at >> 16, 2);
	assert_int_equal(guest_read(&f.g, at, 4), 0x1234);
	set_config(&f.g, PCI_COMMAND, 0, 2);
	assert_int_equal(guest_read(&f.g, at, 4), 0xffffffff);
	assert_int_equal(f.card.maps, f.card.unmaps);
	end(&f);
}

static void test_overlap(void **state)
{
	struct fixture f;
	struct card other;
	uint32_t bar = PCI_BASE_ADDRESS_2, at, there;

	begin(&f);
	f.g.vm.log.level = -1; /* the warnings are wanted here */
	card_create(&other, &f.g, BAR_SIZE);
	assert_int_equal(pci_add(&other.fn, NULL), 0);
	at = config(&f.g, bar, 4);
	there = guest_config_read(&f.g, 2, bar, 4);
	set_config(&f.g, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	guest_config_write(&f.g, 2, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	/* Refused, and everything is as before. */
	set_config(&f.g, bar, there, 4);
	assert_int_equal(config(&f.g, bar, 4), at);
	assert_int_equal(guest_read(&f.g, at, 4), 0x600dcafe);
	other.reg = 1;
	assert_int_equal(guest_read(&f.g, there, 4), 1);
	/* Set while decoding is off, and refused when it comes on. */
	set_config(&f.g, PCI_COMMAND, 0, 2);
	set_config(&f.g, bar, there, 4);
	assert_int_equal(config(&f.g, bar, 4), there);
	set_config(&f.g, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(config(&f.g, bar, 4), at);
	assert_int_equal(guest_read(&f.g, at, 4), 0x600dcafe);
	/* The two may change places while both are off. */
	set_config(&f.g, PCI_COMMAND, 0, 2);
	guest_config_write(&f.g, 2, PCI_COMMAND, 0, 2);
	set_config(&f.g, bar, there, 4);
	guest_config_write(&f.g, 2, bar, at, 4);
	set_config(&f.g, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	guest_config_write(&f.g, 2, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(guest_read(&f.g, at, 4), 1);
	assert_int_equal(guest_read(&f.g, there, 4), 0x600dcafe);
	pci_remove(&other.fn);
	end(&f);
}

static void test_full(void **state)
{
	struct guest g;
	struct card card[PCI_SLOTS], big;
	struct error err;

	guest_create(&g);
	card_create(&big, &g, PCI_MMIO_SIZE * 2);
	assert_int_equal(pci_add(&big.fn, &err), -ENOSPC);
	pci_remove(&big.fn);
	for (unsigned i = 0; i < PCI_SLOTS; i++) {
		card_create(&card[i], &g, BAR_SIZE);
		assert_int_equal(pci_add(&card[i].fn, &err), i == PCI_SLOTS - 1 ? -ENOSPC : 0);
	}
	assert_string_equal(err.text, "the PCI bus is full (32 devices)");
	for (unsigned i = 0; i < PCI_SLOTS; i++)
		pci_remove(&card[i].fn);
	guest_destroy(&g);
}

static void test_capabilities(void **state)
{
	struct guest g;
	struct pci_function fn;
	unsigned n = 0, at;

	guest_create(&g);
	pci_function_init(&fn, &g.vm, "caps", 1, 2, 3, 0, 0);
	while (pci_add_capability(&fn, PCI_CAP_ID_VNDR, 17) >= 0)
		n++;
	assert_int_equal(n, (256 - 64) / 20);
	/* What is left is used to the last byte. */
	assert_int_equal(pci_add_capability(&fn, PCI_CAP_ID_VNDR, 12), 64 + 20 * n++);
	assert_int_equal(pci_add_capability(&fn, PCI_CAP_ID_VNDR, 1), -ENOSPC);
	assert_int_equal(pci_add(&fn, NULL), 0);
	for (at = config(&g, PCI_CAPABILITY_LIST, 1); at; at = config(&g, at + 1, 1)) {
		assert_int_equal(config(&g, at, 1), PCI_CAP_ID_VNDR);
		n--;
	}
	assert_int_equal(n, 0);
	pci_remove(&fn);
	guest_destroy(&g);
}

/* MSI-X */

struct msix_fixture {
	struct fixture f;
	uint64_t table, pba;
	unsigned control;
};

static void begin_msix(struct msix_fixture *m)
{
	begin(&m->f);
	m->control = msix_control_offset(m->f.card.fn.msix);
	m->table = config(&m->f.g, PCI_BASE_ADDRESS_4, 4);
	m->pba = m->table + (config(&m->f.g, m->control + 6, 4) & ~7U);
	set_config(&m->f.g, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
}

static void set_vector(struct msix_fixture *m, unsigned i, uint64_t addr, uint32_t data, bool mask)
{
	guest_write(&m->f.g, m->table + 16 * i, addr, 8);
	guest_write(&m->f.g, m->table + 16 * i + 8, data | (uint64_t)mask << 32, 8);
}

/* Interrupts with the data value since the last call. */
static uint64_t fired(struct msix_fixture *m, uint32_t data)
{
	struct guest_device d = {.guest = &m->f.g, .slot = data >> 8};

	return guest_interrupts(&d, data & 0xff);
}

static unsigned routes(struct msix_fixture *m)
{
	unsigned n = 0;

	for (unsigned i = 0; i < GUEST_GSIS; i++)
		n += m->f.g.gsi[i].used;
	return n;
}

static void test_msix_table(void **state)
{
	struct msix_fixture m;

	begin_msix(&m);
	assert_int_equal(config(&m.f.g, m.control, 2), 2); /* three vectors */
	assert_int_equal(guest_read(&m.f.g, m.table + 12, 4), 1);
	assert_int_equal(guest_read(&m.f.g, m.table + 32 + 8, 8), 1ULL << 32);
	set_vector(&m, 2, 0xfee01000, 0x77, true);
	assert_int_equal(guest_read(&m.f.g, m.table + 32, 8), 0xfee01000);
	/* Odd widths, odd offsets, and behind the last vector: nothing. */
	guest_write(&m.f.g, m.table + 32, 0xaa, 1);
	guest_write(&m.f.g, m.table + 34, 0xaa, 2);
	guest_write(&m.f.g, m.table + 34, 0xaaaaaaaa, 4);
	guest_write(&m.f.g, m.table + 36, 0xaaaaaaaaaaaaaaaa, 8);
	guest_write(&m.f.g, m.table + 48, 0xaaaaaaaa, 4);
	guest_write(&m.f.g, m.pba, 0xaaaaaaaa, 4);
	assert_int_equal(guest_read(&m.f.g, m.table + 32, 8), 0xfee01000);
	assert_int_equal(guest_read(&m.f.g, m.table + 40, 8), 0x100000077);
	assert_int_equal(guest_read(&m.f.g, m.table + 48, 4), 0);
	assert_int_equal(guest_read(&m.f.g, m.table + 32, 2), 0);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 0);
	assert_int_equal(guest_read(&m.f.g, m.pba + 8, 8), 0);
	/* The size is read-only. */
	set_config(&m.f.g, m.control, 0xffff, 2);
	assert_int_equal(config(&m.f.g, m.control, 2),
			 2 | PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	end(&m.f);
}

static void test_msix_masks(void **state)
{
	struct msix_fixture m;
	struct msix *msix;

	begin_msix(&m);
	msix = m.f.card.fn.msix;
	set_vector(&m, 0, 0xfee00000, 0x30, false);
	set_vector(&m, 1, 0xfee00000, 0x31, true);
	msix_signal(msix, 0);
	assert_int_equal(routes(&m), 0); /* MSI-X is off */
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 1);
	set_config(&m.f.g, m.control, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
	assert_int_equal(routes(&m), 0);
	set_config(&m.f.g, m.control, PCI_MSIX_FLAGS_ENABLE, 2);
	assert_int_equal(routes(&m), 1); /* of the unmasked one alone */
	assert_int_equal(fired(&m, 0x30), 1);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 0);
	msix_signal(msix, 0);
	assert_int_equal(fired(&m, 0x30), 1);
	/* Masked: pending, and delivered once when unmasked. */
	msix_signal(msix, 1);
	msix_signal(msix, 1);
	assert_int_equal(guest_read(&m.f.g, m.pba, 4), 2);
	set_vector(&m, 1, 0xfee00000, 0x31, false);
	assert_true(fired(&m, 0x31) > 0);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 0);
	/* The function mask, and a message that changes meanwhile. */
	set_config(&m.f.g, m.control, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
	msix_signal(msix, 0);
	msix_signal(msix, 2);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 5);
	set_vector(&m, 0, 0xfee00000, 0x40, false);
	set_config(&m.f.g, m.control, PCI_MSIX_FLAGS_ENABLE, 2);
	assert_int_equal(fired(&m, 0x40), 1);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 4);
	/* Vectors that do not exist. */
	msix_signal(msix, 3);
	msix_signal(msix, 0xffff);
	assert_int_equal(msix_eventfd(msix, 3), -1);
	assert_int_equal(msix_eventfd(msix, 0xffff), -1);
	end(&m.f);
}

/* No routes left, and a message that KVM refuses: the vector waits, and works afterwards. */
static void test_msix_refused(void **state)
{
	struct msix_fixture m;

	begin_msix(&m);
	m.f.g.vm.log.level = -1;
	m.f.g.gsis_max = 0;
	set_config(&m.f.g, m.control, PCI_MSIX_FLAGS_ENABLE, 2);
	set_vector(&m, 0, 0xfee00000, 0x30, false);
	msix_signal(m.f.card.fn.msix, 0);
	assert_int_equal(guest_read(&m.f.g, m.pba, 8), 1);
	m.f.g.gsis_max = 1;
	set_vector(&m, 0, 0x00000001fee00000, 0x30, false);
	assert_int_equal(routes(&m), 0);
	set_vector(&m, 0, 0xfee00000, 0x30, false);
	assert_int_equal(fired(&m, 0x30), 1);
	set_vector(&m, 0, 0x00000001fee00000, 0x30, false);
	assert_int_equal(routes(&m), 0);
	end(&m.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),	     cmocka_unit_test(test_bar),
		cmocka_unit_test(test_ports),	     cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_full),	     cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_msix_table),   cmocka_unit_test(test_msix_masks),
		cmocka_unit_test(test_msix_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
