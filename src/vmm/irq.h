/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_IRQ_H
#define WISP_VMM_IRQ_H

/*
 * Interrupts of the VM: the interrupt controllers (in the kernel, or split with our own
 * I/O APIC), the master copy of the GSI routing table (KVM_SET_GSI_ROUTING replaces the
 * whole table), and irqfds. Lock: the VM's.
 */

#include <stdint.h>

struct error;
struct vm;

/*
 * The address of a MSI as KVM takes it. With KVM_FEATURE_MSI_EXT_DEST_ID the guest puts bits
 * 14..8 of the destination id in address bits 11..5; KVM wants them from address bit 40 on
 * (KVM_CAP_X2APIC_API). Bit 4 says that it is in a remappable format, which we do not offer.
 */
static inline uint64_t irq_msi_address(uint64_t addr)
{
	uint64_t extended = addr & 0xfe0;

	return addr & 0x10 ? addr : (addr & ~extended) | extended << 35;
}

enum irqchip_mode { IRQCHIP_KERNEL, IRQCHIP_SPLIT };

#define IRQ_PINS 24 /* GSIs 0..23 are the I/O APIC's pins; MSI routes come behind them */

/*
 * Creates the controllers (before the first vCPU) and the routes of the pins; irq_update()
 * hands the whole table to KVM again, after a pin's message changed.
 */
int irq_create(struct vm *vm, enum irqchip_mode mode, struct error *err);
void irq_destroy(struct vm *vm);
int irq_update(struct vm *vm);

/*
 * A MSI route: allocated with no target, connected to an eventfd while it may fire.
 * Returns the GSI, or -ENOSPC.
 */
int irq_msi_alloc(struct vm *vm);
void irq_msi_free(struct vm *vm, int gsi);

/* Sets the message of a route. addr and data as the guest wrote them to its MSI-X table. */
int irq_msi_set(struct vm *vm, int gsi, uint64_t addr, uint32_t data);

/*
 * Connects (disconnects) eventfd to the GSI: each signal of the eventfd then raises it
 * without a detour through us. An eventfd that is signalled already fires at once.
 */
int irq_attach(struct vm *vm, int gsi, int eventfd);
int irq_detach(struct vm *vm, int gsi, int eventfd);

/* Raises an edge on an I/O APIC pin. */
void irq_pulse(struct vm *vm, unsigned pin);

#endif
