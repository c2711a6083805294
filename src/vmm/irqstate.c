/* SPDX-License-Identifier: Apache-2.0 */
/* Saves and restores the interrupt controllers. */

#include "vmm/irqstate.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/vm.h"

#define PIC(member) STATE_FIELD(struct kvm_irqchip, chip.pic.member)
#define IOAPIC(member) STATE_FIELD(struct kvm_irqchip, chip.ioapic.member)

static const struct state_field pic_state[] = {
	PIC(last_irr),
	PIC(irr),
	PIC(imr),
	PIC(isr),
	PIC(priority_add),
	PIC(irq_base),
	PIC(read_reg_select),
	PIC(poll),
	PIC(special_mask),
	PIC(init_state),
	PIC(auto_eoi),
	PIC(rotate_on_auto_eoi),
	PIC(init4),
	PIC(special_fully_nested_mode),
	PIC(elcr),
	PIC(elcr_mask),
	STATE_END,
};

static const struct state_field kvm_ioapic_state_fields[] = {
	IOAPIC(base_address),
	IOAPIC(ioregsel),
	IOAPIC(id),
	IOAPIC(irr),
	{.name = "chip.ioapic.redirtbl",
	 .offset = offsetof(struct kvm_irqchip, chip.ioapic.redirtbl),
	 .size = sizeof(uint64_t),
	 .count = KVM_IOAPIC_NUM_PINS},
	STATE_END,
};

static const struct {
	const char *name;
	const struct state_field *fields;
	uint32_t id;
} chips[IRQSTATE_PARTS] = {
	{"pic0", pic_state, KVM_IRQCHIP_PIC_MASTER},
	{"pic1", pic_state, KVM_IRQCHIP_PIC_SLAVE},
	{"ioapic", kvm_ioapic_state_fields, KVM_IRQCHIP_IOAPIC},
};

unsigned irqstate_parts(struct vm *vm, struct irq_state *s, struct state_part *ret)
{
	if (vm->ioapic) {
		ret[0] = (struct state_part){"ioapic", ioapic_fields, &s->ioapic};
		return 1;
	}
	for (unsigned i = 0; i < IRQSTATE_PARTS; i++)
		ret[i] = (struct state_part){chips[i].name, chips[i].fields, &s->chip[i]};
	return IRQSTATE_PARTS;
}

int irqstate_get(struct vm *vm, struct irq_state *s, struct error *err)
{
	memset(s, 0, sizeof(*s));
	if (vm->ioapic) {
		s->ioapic = *ioapic_get(vm->ioapic);
		return 0;
	}
	for (unsigned i = 0; i < IRQSTATE_PARTS; i++) {
		s->chip[i].chip_id = chips[i].id;
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &s->chip[i]) < 0)
			return error_errno(err, -errno, "cannot read KVM's %s", chips[i].name);
	}
	return 0;
}

int irqstate_check(struct vm *vm, const struct irq_state *s, struct error *err)
{
	return vm->ioapic ? ioapic_check(&s->ioapic, err) : 0;
}

int irqstate_set(struct vm *vm, const struct irq_state *s, struct error *err)
{
	if (vm->ioapic) {
		int r = ioapic_set(vm->ioapic, &s->ioapic);

		return r ? error_errno(err, r, "cannot set interrupt routes") : 0;
	}
	for (unsigned i = 0; i < IRQSTATE_PARTS; i++) {
		struct kvm_irqchip chip = s->chip[i];

		chip.chip_id = chips[i].id;
		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &chip) < 0)
			return error_errno(err, -errno, "cannot set KVM's %s", chips[i].name);
	}
	return 0;
}
