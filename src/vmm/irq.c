/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt routing: the master copy of KVM's GSI table, MSI routes and irqfds. */

#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/ioapic.h"
#include "vmm/vm.h"

/* KVM takes 4096 routes; 512 are 21 devices with 24 vectors each. */
#define MSI_MAX 512

struct msi_route {
	uint64_t addr;
	uint32_t data;
	bool used;  /* allocated */
	bool valid; /* has a message */
};

struct irq_routes {
	struct msi_route msi[MSI_MAX];
	unsigned msi_top; /* one above the highest used */
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[IRQ_PINS + MSI_MAX];
	} table; /* what the kernel was told last */
};

int irq_create(struct vm *vm, enum irqchip_mode mode, struct error *err)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IRQ_PINS}};
	int r;

	vm->routes = calloc(1, sizeof(*vm->routes));
	if (!vm->routes)
		return error_errno(err, -ENOMEM, "interrupt routes");
	if (mode == IRQCHIP_SPLIT) {
		if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0)
			return error_errno(
				err, -errno,
				"KVM of this machine has no split irqchip (use --irqchip "
				"kernel)");
		r = ioapic_create(vm, err);
		if (r)
			return r;
	} else if (ioctl(vm->fd, KVM_CREATE_IRQCHIP) < 0) {
		return error_errno(err, -errno, "cannot create the interrupt controllers in KVM");
	}
	r = irq_update(vm);
	return r ? error_errno(err, r, "cannot set interrupt routes") : 0;
}

void irq_destroy(struct vm *vm)
{
	ioapic_destroy(vm);
	free(vm->routes);
	vm->routes = NULL;
}

static void put_msi(struct irq_routes *routes, uint32_t gsi, uint64_t addr, uint32_t data)
{
	addr = irq_msi_address(addr);
	routes->table.entry[routes->table.head.nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = (uint32_t)addr,
			  .address_hi = (uint32_t)(addr >> 32),
			  .data = data},
	};
}

static void put_pin(struct vm *vm, unsigned pin)
{
	struct irq_routes *routes = vm->routes;
	uint64_t addr;
	uint32_t data;

	if (vm->ioapic) {
		/* The kernel reads these to know which vectors need their EOI reported. */
		if (ioapic_message(vm->ioapic, pin, &addr, &data))
			put_msi(routes, pin, addr, data);
		return;
	}
	routes->table.entry[routes->table.head.nr++] = (struct kvm_irq_routing_entry){
		.gsi = pin,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = pin},
	};
}

int irq_update(struct vm *vm)
{
	struct irq_routes *routes = vm->routes;

	routes->table.head = (struct kvm_irq_routing){0};
	for (unsigned pin = 0; pin < IRQ_PINS; pin++)
		put_pin(vm, pin);
	for (unsigned i = 0; i < routes->msi_top; i++)
		if (routes->msi[i].valid)
			put_msi(routes, IRQ_PINS + i, routes->msi[i].addr, routes->msi[i].data);
	return ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routes->table.head) < 0 ? -errno : 0;
}

int irq_msi_alloc(struct vm *vm)
{
	struct irq_routes *routes = vm->routes;

	for (unsigned i = 0; i < MSI_MAX; i++) {
		if (routes->msi[i].used)
			continue;
		routes->msi[i] = (struct msi_route){.used = true};
		if (i >= routes->msi_top)
			routes->msi_top = i + 1;
		return (int)(IRQ_PINS + i);
	}
	return -ENOSPC;
}

void irq_msi_free(struct vm *vm, int gsi)
{
	struct irq_routes *routes = vm->routes;
	bool was_valid = routes->msi[gsi - IRQ_PINS].valid;

	routes->msi[gsi - IRQ_PINS] = (struct msi_route){0};
	while (routes->msi_top && !routes->msi[routes->msi_top - 1].used)
		routes->msi_top--;
	if (was_valid)
		irq_update(vm);
}

int irq_msi_set(struct vm *vm, int gsi, uint64_t addr, uint32_t data)
{
	struct msi_route *route = &vm->routes->msi[gsi - IRQ_PINS];
	struct msi_route old = *route;
	int r;

	if (old.valid && old.addr == addr && old.data == data)
		return 0;
	route->addr = addr;
	route->data = data;
	route->valid = true;
	r = irq_update(vm);
	if (r)
		*route = old;
	return r;
}

static int irqfd(struct vm *vm, int gsi, int eventfd, unsigned flags)
{
	struct kvm_irqfd arg = {.fd = (uint32_t)eventfd, .gsi = (uint32_t)gsi, .flags = flags};

	return ioctl(vm->fd, KVM_IRQFD, &arg) < 0 ? -errno : 0;
}

int irq_attach(struct vm *vm, int gsi, int eventfd)
{
	return irqfd(vm, gsi, eventfd, 0);
}

int irq_detach(struct vm *vm, int gsi, int eventfd)
{
	return irqfd(vm, gsi, eventfd, KVM_IRQFD_FLAG_DEASSIGN);
}

void irq_pulse(struct vm *vm, unsigned pin)
{
	struct kvm_irq_level level = {.irq = pin};
	struct kvm_msi msi = {0};
	uint64_t addr;

	if (!vm->ioapic) {
		level.level = 1;
		ioctl(vm->fd, KVM_IRQ_LINE, &level);
		level.level = 0;
		ioctl(vm->fd, KVM_IRQ_LINE, &level);
		return;
	}
	if (!ioapic_message(vm->ioapic, pin, &addr, &msi.data))
		return;
	addr = irq_msi_address(addr);
	msi.address_lo = (uint32_t)addr;
	msi.address_hi = (uint32_t)(addr >> 32);
	ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}
