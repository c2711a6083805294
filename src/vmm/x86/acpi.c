/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI tables of a hardware-reduced machine, written field by field (ACPI 6.4, chapter 5.2). */

#include "vmm/x86/acpi.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/x86/dsdt.hex.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/wire.h"
#include "vmm/dev/power.h"
#include "vmm/ioapic.h"
#include "vmm/memory.h"
#include "vmm/pci/pci.h"

#define HEADER_LENGTH 4 /* offsets in the common table header */
#define HEADER_CHECKSUM 9
#define HEADER_SIZE 36
#define LAPIC_BASE 0xfee00000

/* FADT: fixed feature flags and boot architecture flags (tables 5.10 and 5.11). */
#define FADT_WBINVD (1u << 0)
#define FADT_POWER_BUTTON_IS_DEVICE (1u << 4)
#define FADT_SLEEP_BUTTON_IS_DEVICE (1u << 5)
#define FADT_RESET_REG (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_CMOS_RTC (1u << 5)
#define SPACE_IO 1 /* generic address structure: system I/O */
#define ACCESS_BYTE 1

#define MADT_LAPIC 0
#define MADT_IOAPIC 1
#define MADT_X2APIC 9
#define MADT_ENABLED 1u

static uint8_t checksum(const uint8_t *data, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum += *data++;
	return (uint8_t)-sum;
}

/* Starts a table on a 16-byte border and returns its offset. */
static size_t table_begin(struct wire_writer *w, const char *signature, uint8_t revision)
{
	size_t start;

	while (w->pos % 16 && !w->failed)
		wire_put_u8(w, 0);
	start = w->pos;
	wire_put_bytes(w, signature, 4);
	wire_put_u32(w, 0); /* length, set by table_end() */
	wire_put_u8(w, revision);
	wire_put_u8(w, 0);
	wire_put_bytes(w, "WISP  ", 6);
	wire_put_bytes(w, "WISPVMM ", 8);
	wire_put_u32(w, 1);
	wire_put_bytes(w, "WISP", 4);
	wire_put_u32(w, 1);
	return start;
}

static void table_end(struct wire_writer *w, size_t start)
{
	struct wire_writer length;

	if (w->failed)
		return;
	length = wire_writer(w->data + start + HEADER_LENGTH, 4);
	wire_put_u32(&length, (uint32_t)(w->pos - start));
	w->data[start + HEADER_CHECKSUM] = 0;
	w->data[start + HEADER_CHECKSUM] = checksum(w->data + start, w->pos - start);
}

static void put_zeros(struct wire_writer *w, size_t n)
{
	while (n--)
		wire_put_u8(w, 0);
}

/* Generic address structure of one byte-wide port; port 0: no register. */
static void put_port(struct wire_writer *w, uint64_t port)
{
	wire_put_u8(w, port ? SPACE_IO : 0);
	wire_put_u8(w, port ? 8 : 0);
	wire_put_u8(w, 0);
	wire_put_u8(w, port ? ACCESS_BYTE : 0);
	wire_put_u64(w, port);
}

static void put_fadt(struct wire_writer *w, uint64_t dsdt)
{
	size_t start = table_begin(w, "FACP", 6);

	put_zeros(w, 4 + 4);	/* FACS and 32-bit DSDT addresses */
	put_zeros(w, 109 - 44); /* no legacy hardware: see IAPC_BOOT_ARCH */
	wire_put_u16(w, BOOT_NO_VGA | BOOT_NO_CMOS_RTC);
	wire_put_u8(w, 0);
	wire_put_u32(w, FADT_WBINVD | FADT_POWER_BUTTON_IS_DEVICE | FADT_SLEEP_BUTTON_IS_DEVICE |
				FADT_RESET_REG | FADT_HW_REDUCED);
	put_port(w, POWER_RESET);
	wire_put_u8(w, POWER_RESET_VALUE);
	wire_put_u16(w, 0); /* ARM_BOOT_ARCH */
	wire_put_u8(w, 4);  /* minor version: 6.4 */
	wire_put_u64(w, 0); /* FACS */
	wire_put_u64(w, dsdt);
	for (int i = 0; i < 8; i++)
		put_port(w, 0); /* PM and GPE blocks */
	put_port(w, POWER_SLEEP_CONTROL);
	put_port(w, POWER_SLEEP_STATUS);
	wire_put_bytes(w, "WISP\0\0\0\0", 8); /* hypervisor vendor identity */
	table_end(w, start);
}

static void put_cpu(struct wire_writer *w, unsigned index, uint32_t apic_id)
{
	if (apic_id < 255) {
		wire_put_u8(w, MADT_LAPIC);
		wire_put_u8(w, 8);
		wire_put_u8(w, (uint8_t)index);
		wire_put_u8(w, (uint8_t)apic_id);
		wire_put_u32(w, MADT_ENABLED);
		return;
	}
	wire_put_u8(w, MADT_X2APIC);
	wire_put_u8(w, 16);
	wire_put_u16(w, 0);
	wire_put_u32(w, apic_id);
	wire_put_u32(w, MADT_ENABLED);
	wire_put_u32(w, index);
}

static void put_madt(struct wire_writer *w, const struct topology *topology)
{
	size_t start = table_begin(w, "APIC", 5);

	wire_put_u32(w, LAPIC_BASE);
	wire_put_u32(w, 0); /* no 8259 */
	for (unsigned i = 0; i < topology_vcpus(topology); i++)
		put_cpu(w, i, topology_apic_id(topology, i));
	wire_put_u8(w, MADT_IOAPIC);
	wire_put_u8(w, 12);
	wire_put_u16(w, 0); /* id, reserved */
	wire_put_u32(w, IOAPIC_BASE);
	wire_put_u32(w, 0); /* first GSI */
	table_end(w, start);
}

static void put_mcfg(struct wire_writer *w)
{
	size_t start = table_begin(w, "MCFG", 1);

	put_zeros(w, 8);
	wire_put_u64(w, PCI_ECAM_BASE);
	wire_put_u16(w, 0); /* segment */
	wire_put_u8(w, 0);  /* first bus */
	wire_put_u8(w, 0);  /* last bus */
	put_zeros(w, 4);
	table_end(w, start);
}

static void put_rsdp(uint8_t *buf, uint64_t xsdt)
{
	struct wire_writer w = wire_writer(buf, 36);

	wire_put_bytes(&w, "RSD PTR ", 8);
	wire_put_u8(&w, 0); /* checksum of the first 20 bytes */
	wire_put_bytes(&w, "WISP  ", 6);
	wire_put_u8(&w, 2);
	wire_put_u32(&w, 0); /* no RSDT */
	wire_put_u32(&w, 36);
	wire_put_u64(&w, xsdt);
	put_zeros(&w, 4);
	buf[8] = checksum(buf, 20);
	buf[32] = checksum(buf, 36);
}

int acpi_build(uint8_t *buf, size_t size, uint64_t base, const struct topology *topology)
{
	struct wire_writer w = wire_writer(buf, size);
	size_t dsdt, fadt, madt, mcfg, xsdt;

	put_zeros(&w, 48); /* the RSDP, when the XSDT has its place */
	dsdt = w.pos;
	wire_put_bytes(&w, dsdt_aml_code, sizeof(dsdt_aml_code));
	put_zeros(&w, -w.pos % 16);
	fadt = w.pos;
	put_fadt(&w, base + dsdt);
	put_zeros(&w, -w.pos % 16);
	madt = w.pos;
	put_madt(&w, topology);
	put_zeros(&w, -w.pos % 16);
	mcfg = w.pos;
	put_mcfg(&w);
	xsdt = table_begin(&w, "XSDT", 1);
	wire_put_u64(&w, base + fadt);
	wire_put_u64(&w, base + madt);
	wire_put_u64(&w, base + mcfg);
	table_end(&w, xsdt);
	if (w.failed)
		return -ENOSPC;
	put_rsdp(buf, base + xsdt);
	return (int)w.pos;
}

int acpi_load(struct memory *mem, const struct topology *topology, struct error *err)
{
	uint8_t *p = memory_at(mem, ACPI_BASE, ACPI_SIZE);
	int r = p ? acpi_build(p, ACPI_SIZE, ACPI_BASE, topology) : -EFAULT;

	if (r >= 0)
		r = acpi_new_generation(mem);
	return r < 0 ? error_errno(err, r, "ACPI tables") : 0;
}

int acpi_new_generation(struct memory *mem)
{
	uint8_t id[ACPI_GENERATION_SIZE];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	return memory_write(mem, ACPI_GENERATION, id, sizeof(id));
}
