/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_IOAPIC_H
#define WISP_VMM_IOAPIC_H

/*
 * The I/O APIC of a VM with a split irqchip (82093AA data sheet, register layout). All our
 * pins are edge-triggered. Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmm/irq.h"
#include "vmm/state.h"

struct error;
struct ioapic;
struct vm;

/* Its registers, which are its saved state. */
struct ioapic_state {
	uint32_t select, id;
	uint64_t entry[IRQ_PINS];
};

#define IOAPIC_BASE 0xfec00000ULL

/* Makes vm->ioapic and puts it on the MMIO bus. */
int ioapic_create(struct vm *vm, struct error *err);
void ioapic_destroy(struct vm *vm);

/* The MSI message that the pin's redirection entry stands for; false while it is masked. */
bool ioapic_message(const struct ioapic *ioapic, unsigned pin, uint64_t *addr, uint32_t *data);

/* Saved state: check tells whether a guest could have brought the registers about. */
extern const struct state_field ioapic_fields[];
const struct ioapic_state *ioapic_get(const struct ioapic *ioapic);
int ioapic_check(const struct ioapic_state *state, struct error *err);
int ioapic_set(struct ioapic *ioapic, const struct ioapic_state *state);

#endif
