/* SPDX-License-Identifier: Apache-2.0 */
/* An I/O APIC for split irqchip mode: the redirection table becomes MSI messages. */

#include "vmm/ioapic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/irq.h"
#include "vmm/vm.h"

#define REG_ID 0x00
#define REG_VERSION 0x01
#define REG_REDIRECTION 0x10
#define VERSION (0x11 | (IRQ_PINS - 1) << 16)

#define ID_MASK 0x0f000000u
#define ENTRY_MASKED (1ULL << 16)
#define ENTRY_READONLY (1ULL << 12 | 1ULL << 14) /* delivery status, remote IRR */

struct ioapic {
	struct vm *vm;
	struct ioapic_state reg;
};

const struct state_field ioapic_fields[] = {
	STATE_FIELD(struct ioapic_state, select),
	STATE_FIELD(struct ioapic_state, id),
	STATE_ARRAY(struct ioapic_state, entry),
	STATE_END,
};

bool ioapic_message(const struct ioapic *ioapic, unsigned pin, uint64_t *addr, uint32_t *data)
{
	uint64_t e = ioapic->reg.entry[pin];

	if (e & ENTRY_MASKED)
		return false;
	/*
	 * Destination id to bits 19..12, destination mode to bit 2; bits 55..49 are the extended
	 * destination id of KVM_FEATURE_MSI_EXT_DEST_ID, which MSI keeps in address bits 11..5.
	 */
	*addr = 0xfee00000 | (e >> 56 & 0xff) << 12 | (e >> 11 & 1) << 2 | (e >> 49 & 0x7f) << 5;
	/* Vector, delivery mode, trigger mode. */
	*data = (uint32_t)((e & 0x7ff) | (e >> 15 & 1) << 15);
	return true;
}

static uint32_t read_register(const struct ioapic *ioapic)
{
	unsigned index = ioapic->reg.select - REG_REDIRECTION;

	if (ioapic->reg.select == REG_ID)
		return ioapic->reg.id;
	if (ioapic->reg.select == REG_VERSION)
		return VERSION;
	if (ioapic->reg.select >= REG_REDIRECTION && index / 2 < IRQ_PINS)
		return (uint32_t)(ioapic->reg.entry[index / 2] >> (index % 2 * 32));
	return 0;
}

static void write_entry(struct ioapic *ioapic, unsigned index, uint32_t value)
{
	uint64_t *e = &ioapic->reg.entry[index / 2];
	unsigned shift = index % 2 * 32;
	uint64_t writable = (0xffffffffULL << shift) & ~ENTRY_READONLY;
	uint64_t old = *e;

	*e = (old & ~writable) | ((uint64_t)value << shift & writable);
	if (*e != old)
		irq_update(ioapic->vm);
}

static void ioapic_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	const struct ioapic *ioapic = dev;
	uint32_t value = offset == 0x00	  ? ioapic->reg.select
			 : offset == 0x10 ? read_register(ioapic)
					  : 0;

	memset(data, 0, len);
	memcpy(data, &value, len < 4 ? len : 4);
}

static void ioapic_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	struct ioapic *ioapic = dev;
	uint32_t value = 0;

	memcpy(&value, data, len < 4 ? len : 4);
	if (offset == 0x00)
		ioapic->reg.select = value & 0xff;
	else if (offset != 0x10)
		return;
	else if (ioapic->reg.select == REG_ID)
		ioapic->reg.id = value & ID_MASK;
	else if (ioapic->reg.select >= REG_REDIRECTION &&
		 ioapic->reg.select < REG_REDIRECTION + 2 * IRQ_PINS)
		write_entry(ioapic, ioapic->reg.select - REG_REDIRECTION, value);
}

static const struct bus_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write};

int ioapic_create(struct vm *vm, struct error *err)
{
	struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
	struct bus_range range = {.base = IOAPIC_BASE,
				  .size = 0x20,
				  .ops = &ioapic_ops,
				  .dev = ioapic,
				  .name = "ioapic"};

	if (!ioapic)
		return error_errno(err, -ENOMEM, "ioapic");
	ioapic->vm = vm;
	for (unsigned pin = 0; pin < IRQ_PINS; pin++)
		ioapic->reg.entry[pin] = ENTRY_MASKED;
	vm->ioapic = ioapic;
	return bus_add(&vm->mmio, &range, err);
}

void ioapic_destroy(struct vm *vm)
{
	if (vm->ioapic)
		bus_remove(&vm->mmio, IOAPIC_BASE);
	free(vm->ioapic);
	vm->ioapic = NULL;
}

const struct ioapic_state *ioapic_get(const struct ioapic *ioapic)
{
	return &ioapic->reg;
}

int ioapic_check(const struct ioapic_state *s, struct error *err)
{
	if (s->select > 0xff || s->id & ~ID_MASK)
		return error_set(err, -EBADMSG, "saved I/O APIC: select 0x%x, id 0x%x", s->select,
				 s->id);
	for (unsigned pin = 0; pin < IRQ_PINS; pin++)
		if (s->entry[pin] & ENTRY_READONLY)
			return error_set(err, -EBADMSG, "saved I/O APIC: entry %u is 0x%llx", pin,
					 (unsigned long long)s->entry[pin]);
	return 0;
}

int ioapic_set(struct ioapic *ioapic, const struct ioapic_state *s)
{
	ioapic->reg = *s;
	return irq_update(ioapic->vm);
}
