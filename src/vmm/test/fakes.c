/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's part of a test guest: routes, irqfds, ioeventfds and vCPUs that only remember. */

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/irq.h"
#include "vmm/test/guest-driver.h"
#include "vmm/vcpu.h"
#include "vmm/x86/clock.h"
#include "vmm/x86/cpu.h"
#include "vmm/x86/cpustate.h"

static struct guest *guest_of(struct vm *vm)
{
	return container_of(vm, struct guest, vm);
}

int irq_msi_alloc(struct vm *vm)
{
	struct guest *g = guest_of(vm);

	for (unsigned i = 0; i < g->gsis_max; i++) {
		if (g->gsi[i].used)
			continue;
		g->gsi[i].used = true;
		g->gsi[i].fd = -1;
		return (int)(IRQ_PINS + i);
	}
	return -ENOSPC;
}

void irq_msi_free(struct vm *vm, int gsi)
{
	struct guest *g = guest_of(vm);

	guest_require(g->gsi[gsi - IRQ_PINS].fd == -1);
	g->gsi[gsi - IRQ_PINS].used = false;
}

int irq_msi_set(struct vm *vm, int gsi, uint64_t addr, uint32_t data)
{
	struct guest *g = guest_of(vm);

	guest_require(g->gsi[gsi - IRQ_PINS].used);
	/* As KVM does with 32-bit destination ids (KVM_CAP_X2APIC_API). */
	if (addr >> 32 & 0xff)
		return -EINVAL;
	g->gsi[gsi - IRQ_PINS].addr = addr;
	g->gsi[gsi - IRQ_PINS].data = data;
	return 0;
}

/* What the eventfd counted fires, as KVM's worker does it. */
static void consume(struct guest *g, int gsi)
{
	eventfd_t count;

	if (!eventfd_read(g->gsi[gsi - IRQ_PINS].fd, &count))
		g->gsi[gsi - IRQ_PINS].fired += count;
}

int irq_attach(struct vm *vm, int gsi, int eventfd)
{
	struct guest *g = guest_of(vm);

	guest_require(g->gsi[gsi - IRQ_PINS].fd == -1);
	g->gsi[gsi - IRQ_PINS].fd = eventfd;
	consume(g, gsi);
	return 0;
}

int irq_detach(struct vm *vm, int gsi, int eventfd)
{
	struct guest *g = guest_of(vm);

	guest_require(g->gsi[gsi - IRQ_PINS].fd == eventfd);
	consume(g, gsi);
	g->gsi[gsi - IRQ_PINS].fd = -1;
	return 0;
}

int vm_ioeventfd(struct vm *vm, uint64_t addr, unsigned len, bool pio, int eventfd, bool add)
{
	struct guest *g = guest_of(vm);

	if (g->no_ioeventfd)
		return -ENOSPC;
	for (unsigned i = 0; i < g->nioeventfds; i++) {
		if (g->ioeventfd[i].addr != addr)
			continue;
		guest_require(!add && g->ioeventfd[i].fd == eventfd);
		g->ioeventfd[i] = g->ioeventfd[--g->nioeventfds];
		return 0;
	}
	if (!add)
		return -ENOENT;
	guest_require(g->nioeventfds < ARRAY_SIZE(g->ioeventfd));
	g->ioeventfd[g->nioeventfds].addr = addr;
	g->ioeventfd[g->nioeventfds++].fd = eventfd;
	return 0;
}

int vm_add_device(struct vm *vm, struct device *dev, struct error *err)
{
	unsigned n = 0;

	if (vm->ndevices == GUEST_DEVICES)
		return error_set(err, -ENOSPC, "the test guest is full");
	for (unsigned i = 0; i < vm->ndevices; i++)
		n += vm->devices[i]->desc == dev->desc;
	snprintf(dev->id, sizeof(dev->id), "%s%u", dev->desc->name, n);
	vm->devices[vm->ndevices++] = dev;
	return 0;
}

void irq_pulse(struct vm *vm, unsigned pin)
{
	guest_of(vm)->pulses[pin]++;
}

int irq_update(struct vm *vm)
{
	guest_of(vm)->irq_updates++;
	return 0;
}

void vm_end(struct vm *vm, enum vm_end why)
{
	if (!vm->end)
		vm->end = (int)why;
	loop_stop(vm->loop);
}

int vm_pause(struct vm *vm)
{
	if (!guest_of(vm)->pause_result)
		guest_of(vm)->paused = true;
	return guest_of(vm)->pause_result;
}

int vm_resume(struct vm *vm, struct error *err)
{
	if (guest_of(vm)->pause_result)
		return error_errno(err, guest_of(vm)->pause_result, "cannot resume");
	guest_of(vm)->paused = false;
	return 0;
}

bool vcpus_paused(const struct vm *vm)
{
	return guest_of((struct vm *)vm)->paused;
}

/* vCPUs are what the test put into guest.cpu. */

int cpustate_get(struct vcpu *v, const struct vm_clock *clock, struct cpu_state *s,
		 struct error *err)
{
	*s = guest_of(v->vm)->cpu[v->index];
	return 0;
}

int cpustate_set(struct vcpu *v, const struct cpu_state *s, struct error *err)
{
	struct guest *g = guest_of(v->vm);

	guest_require(v->index < GUEST_CPUS);
	if (g->cpu_refused)
		return error_set(err, -EOPNOTSUPP, "KVM refused");
	g->cpu[v->index] = *s;
	g->cpu_sets++;
	return 0;
}

uint32_t cpustate_tsc_khz(struct vcpu *v)
{
	return guest_of(v->vm)->cpu[v->index].tsc_khz;
}

int cpu_offered(struct vm *vm, struct cpuid *ret, struct error *err)
{
	*ret = guest_of(vm)->offered;
	return 0;
}

int clock_read(struct vm *vm, struct vm_clock *ret)
{
	*ret = (struct vm_clock){.clock_ns = 1, .realtime_ns = 2, .host_tsc = 3};
	return 0;
}

int clock_apply(struct vm *vm, const struct clock_plan *plan, struct error *err)
{
	guest_of(vm)->clocks++;
	return 0;
}

int vm_map_memory(struct vm *vm, uint32_t flags, struct error *err)
{
	guest_of(vm)->memory_flags = flags;
	return 0;
}

int vm_claim(struct vm *vm, bool claim, struct error *err)
{
	return 0;
}

void vcpu_hold(struct vcpu *v, uint64_t ns)
{
	guest_of(v->vm)->held_ns += ns;
}
