/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_IRQSTATE_H
#define WISP_VMM_IRQSTATE_H

/*
 * Saved state of the interrupt controllers that are no vCPU's: PICs and I/O APIC in KVM, or our
 * own I/O APIC. Routes of MSIs are not state: they follow from the devices' tables.
 */

#include <linux/kvm.h>

#include "vmm/ioapic.h"
#include "vmm/state.h"

struct error;
struct vm;

#define IRQSTATE_PARTS 3

struct irq_state {
	struct kvm_irqchip chip[IRQSTATE_PARTS];
	struct ioapic_state ioapic;
};

/* The parts over s that this VM has; their number. */
unsigned irqstate_parts(struct vm *vm, struct irq_state *s, struct state_part *ret);

int irqstate_get(struct vm *vm, struct irq_state *s, struct error *err);

/* Without a vCPU running. */
int irqstate_set(struct vm *vm, const struct irq_state *s, struct error *err);

/* What a table cannot check. 0 or -EBADMSG. */
int irqstate_check(struct vm *vm, const struct irq_state *s, struct error *err);

#endif
