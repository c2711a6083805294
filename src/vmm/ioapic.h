/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_IOAPIC_H
#define WISP_VMM_IOAPIC_H

/*
 * The I/O APIC of a VM with a split irqchip (82093AA data sheet, register layout). All our
 * pins are edge-triggered. Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct ioapic;
struct vm;

#define IOAPIC_BASE 0xfec00000ULL

/* Makes vm->ioapic and puts it on the MMIO bus. */
int ioapic_create(struct vm *vm, struct error *err);
void ioapic_destroy(struct vm *vm);

/* The MSI message that the pin's redirection entry stands for; false while it is masked. */
bool ioapic_message(const struct ioapic *ioapic, unsigned pin, uint64_t *addr, uint32_t *data);

#endif
