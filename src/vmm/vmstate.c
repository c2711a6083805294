/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saves and restores a VM. The blob is a list of sections, each a list of parts (state.h); one
 * function says what the section is made of, for both directions.
 */

#include "vmm/vmstate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/config.h"
#include "vmm/device.h"
#include "vmm/irqstate.h"
#include "vmm/pci/pci.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/x86/clock.h"
#include "vmm/x86/cpu.h"
#include "vmm/x86/cpustate.h"
#include "vmm/x86/features.h"

#define LVT_TIMER 0x320
#define LVT_MASKED (1u << 16)
#define LVT_MODE (3u << 17)
#define LVT_TSC_DEADLINE (2u << 17)

/* What must be the same where the VM continues. */
struct machine {
	uint64_t memory;
	uint32_t sockets, cores, threads;
	uint8_t irqchip; /* enum irqchip_mode */
};

static const struct state_field machine_state[] = {
	STATE_FIELD(struct machine, memory),  STATE_FIELD(struct machine, sockets),
	STATE_FIELD(struct machine, cores),   STATE_FIELD(struct machine, threads),
	STATE_FIELD(struct machine, irqchip), STATE_END,
};

static const struct state_field clock_state[] = {
	STATE_FIELD(struct vm_clock, clock_ns),
	STATE_FIELD(struct vm_clock, realtime_ns),
	STATE_END,
};

/* One section at a time lives here, except PCI and devices, which have their own fields. */
struct scratch {
	struct machine machine;
	struct vm_clock clock;
	struct irq_state irq;
	struct cpu_state cpu;
	struct cpuid here; /* what this host can offer */
	struct clock_plan *plan;
};

enum kind { MACHINE, CLOCK, CPU, IRQCHIP, PCI, DEVICE };

/* Those that are there once: all but the vCPUs and devices. */
#define SINGLE_SECTIONS 4

struct section {
	enum kind kind;
	unsigned index; /* of the vCPU or device */
	char name[32];
	struct state_part part[DEVICE_PARTS_MAX];
	unsigned nparts;
};

static unsigned count_sections(const struct vm *vm)
{
	return SINGLE_SECTIONS + vm->nvcpus + vm->ndevices;
}

/* The n-th section of this VM: machine, clock, vCPUs, interrupt controllers, PCI, devices. */
static void describe(struct vm *vm, struct scratch *s, unsigned n, struct section *ret)
{
	struct state_part machine = {"machine", machine_state, &s->machine};
	struct state_part clock = {"clock", clock_state, &s->clock};
	const struct device *dev;

	*ret = (struct section){.kind = n ? CLOCK : MACHINE, .nparts = 1};
	ret->part[0] = n ? clock : machine;
	snprintf(ret->name, sizeof(ret->name), "%s", ret->part[0].name);
	if (n < 2)
		return;
	ret->index = n - 2;
	if (ret->index < vm->nvcpus) {
		ret->kind = CPU;
		snprintf(ret->name, sizeof(ret->name), "cpu%u", ret->index);
		cpustate_parts(&s->cpu, ret->part);
		ret->nparts = CPUSTATE_PARTS;
		return;
	}
	ret->index -= vm->nvcpus;
	if (!ret->index) {
		ret->kind = IRQCHIP;
		snprintf(ret->name, sizeof(ret->name), "irqchip");
		ret->nparts = irqstate_parts(vm, &s->irq, ret->part);
		return;
	}
	if (!--ret->index) {
		ret->kind = PCI;
		snprintf(ret->name, sizeof(ret->name), "pci");
		pci_host_parts(vm, ret->part);
		ret->nparts = PCI_HOST_PARTS;
		return;
	}
	dev = vm->devices[--ret->index];
	ret->kind = DEVICE;
	memcpy(ret->name, dev->id, sizeof(ret->name));
	memcpy(ret->part, dev->part, sizeof(ret->part));
	ret->nparts = dev->nparts;
}

static struct machine machine_of(const struct vm *vm)
{
	const struct topology *t = &vm->config->topology;

	return (struct machine){.memory = vm->mem.size,
				.sockets = t->sockets,
				.cores = t->cores,
				.threads = t->threads,
				.irqchip = (uint8_t)vm->config->irqchip};
}

size_t vmstate_max(const struct vm *vm)
{
	return (1u << 20) + (size_t)vm->nvcpus * (64u << 10) + (size_t)vm->ndevices * (64u << 10);
}

/* Saving */

static int collect(struct vm *vm, struct scratch *s, const struct section *section,
		   struct error *err)
{
	switch (section->kind) {
	case MACHINE:
		s->machine = machine_of(vm);
		return 0;
	case CLOCK:
		s->clock = vm->clock;
		return 0;
	case CPU:
		return cpustate_get(&vm->vcpus[section->index], &vm->clock, &s->cpu, err);
	case IRQCHIP:
		return irqstate_get(vm, &s->irq, err);
	default:
		return 0;
	}
}

static void put_section(struct wire_writer *w, const struct section *section)
{
	struct wire_writer length;
	size_t start;

	state_put_name(w, section->name);
	length = *w;
	wire_put_u32(w, 0);
	start = w->pos;
	state_save_parts(w, section->part, section->nparts);
	if (!w->failed)
		wire_put_u32(&length, (uint32_t)(w->pos - start));
}

static int save(struct vm *vm, struct scratch *s, struct wire_writer *w, struct error *err)
{
	unsigned n = count_sections(vm);
	int r = 0;

	wire_put_bytes(w, VMSTATE_MAGIC, strlen(VMSTATE_MAGIC));
	wire_put_u32(w, VMSTATE_VERSION);
	wire_put_u32(w, n);
	for (unsigned i = 0; !r && i < n; i++) {
		struct section section;

		describe(vm, s, i, &section);
		r = collect(vm, s, &section, err);
		put_section(w, &section);
	}
	if (!r && w->failed)
		r = error_set(err, -ENOSPC, "the saved state is larger than %zu bytes", w->size);
	return r;
}

int vmstate_save(struct vm *vm, struct error *err)
{
	CLEANUP_FREE struct scratch *s = NULL;
	size_t max = vmstate_max(vm);
	struct wire_writer w;
	void *map;
	int r;

	if (vm->saved)
		return 0;
	s = calloc(1, sizeof(*s));
	/* Pages that are not written cost nothing, and all of them go back. */
	map = mmap(NULL, max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (!s || map == MAP_FAILED)
		return error_errno(err, -ENOMEM, "saved state");
	w = wire_writer(map, max);
	r = save(vm, s, &w, err);
	if (r) {
		munmap(map, max);
		return r;
	}
	vm->saved = map;
	vm->saved_size = w.pos;
	return 0;
}

void vmstate_forget(struct vm *vm)
{
	if (vm->saved)
		munmap(vm->saved, vmstate_max(vm));
	vm->saved = NULL;
	vm->saved_size = 0;
}

/* Restoring */

static int check_machine(struct vm *vm, const struct machine *m, struct error *err)
{
	struct machine here = machine_of(vm);

	if (m->memory != here.memory)
		return error_set(err, -EINVAL,
				 "the saved VM has %" PRIu64 " MiB of memory, this one %" PRIu64,
				 m->memory >> 20, here.memory >> 20);
	if (m->sockets != here.sockets || m->cores != here.cores || m->threads != here.threads)
		return error_set(err, -EINVAL,
				 "the saved VM has sockets=%u,cores=%u,threads=%u, this one "
				 "sockets=%u,cores=%u,threads=%u",
				 m->sockets, m->cores, m->threads, here.sockets, here.cores,
				 here.threads);
	if (m->irqchip != here.irqchip)
		return error_set(err, -EINVAL, "the saved VM has --irqchip %s, this one has not",
				 m->irqchip == IRQCHIP_SPLIT ? "split" : "kernel");
	return 0;
}

static int check_cpu(struct scratch *s, unsigned index, struct error *err)
{
	struct clock_cpu *cpu = &s->plan->cpu[index];
	uint32_t lvt = s->cpu.lapic[LVT_TIMER / 4];
	int r = cpustate_check(&s->cpu, err);

	if (!r)
		r = features_check(&s->cpu.cpuid, &s->here, err);
	if (r)
		return r;
	cpu->tsc = s->cpu.tsc;
	cpu->deadline = s->cpu.tsc_deadline;
	cpu->armed = (lvt & LVT_MODE) == LVT_TSC_DEADLINE && !(lvt & LVT_MASKED);
	return 0;
}

/* A section that is in scratch now (those of PCI and devices are where they were). */
static int check(struct vm *vm, struct scratch *s, const struct section *section, struct error *err)
{
	switch (section->kind) {
	case MACHINE:
		return check_machine(vm, &s->machine, err);
	case CLOCK:
		s->plan->saved = s->clock;
		return 0;
	case CPU:
		return check_cpu(s, section->index, err);
	case IRQCHIP:
		return irqstate_check(vm, &s->irq, err);
	default:
		return 0;
	}
}

static int apply(struct vm *vm, struct scratch *s, const struct section *section, struct error *err)
{
	struct device *dev;
	int r;

	switch (section->kind) {
	case CPU:
		return cpustate_set(&vm->vcpus[section->index], &s->cpu, err);
	case IRQCHIP:
		/* Controllers and clocks are as they were before a device raises anything. */
		r = irqstate_set(vm, &s->irq, err);
		return r ? r : clock_apply(vm, s->plan, err);
	case PCI:
		return pci_host_restored(vm, err);
	case DEVICE:
		dev = vm->devices[section->index];
		return dev->ops->restored ? dev->ops->restored(dev, err) : 0;
	default:
		return 0;
	}
}

/* Reads the next section; what lives in PCI or a device is only looked at unless for_real. */
static int get_section(struct wire_reader *r, const struct section *section, bool for_real,
		       struct error *err)
{
	int ret = state_get_name(r, section->name, err);
	uint32_t size = ret ? 0 : wire_get_u32(r);
	const void *data = ret ? NULL : wire_get_bytes(r, size);
	struct wire_reader body;

	if (ret)
		return ret;
	if (!data)
		return error_set(err, -EBADMSG, "saved state ends inside \"%s\"", section->name);
	body = wire_reader(data, size);
	ret = section->kind >= PCI && !for_real
		      ? state_check_parts(&body, section->part, section->nparts, err)
		      : state_restore_parts(&body, section->part, section->nparts, err);
	if (!ret && !wire_done(&body))
		ret = error_set(err, -EBADMSG, "%zu bytes too many", body.size - body.pos);
	return ret ? error_prefix(err, ret, "%s", section->name) : 0;
}

static int get_head(struct vm *vm, struct wire_reader *r, struct error *err)
{
	const void *magic = wire_get_bytes(r, strlen(VMSTATE_MAGIC));
	uint32_t version = wire_get_u32(r), n = wire_get_u32(r);

	if (!magic || memcmp(magic, VMSTATE_MAGIC, strlen(VMSTATE_MAGIC)) || !wire_ok(r))
		return error_set(err, -EBADMSG, "this is no saved state of a VM");
	if (version != VMSTATE_VERSION)
		return error_set(err, -EBADMSG, "saved state of version %u, not %u", version,
				 VMSTATE_VERSION);
	if (n != count_sections(vm))
		return error_set(err, -EINVAL,
				 "the saved VM has %u vCPUs and devices, this one has %u",
				 n - SINGLE_SECTIONS, count_sections(vm) - SINGLE_SECTIONS);
	return 0;
}

/* One walk through the blob: first to check everything, then for real. */
static int walk(struct vm *vm, struct scratch *s, struct wire_reader r, bool for_real,
		struct error *err)
{
	int ret = get_head(vm, &r, err);

	for (unsigned i = 0; !ret && i < count_sections(vm); i++) {
		struct section section;

		describe(vm, s, i, &section);
		ret = get_section(&r, &section, for_real, err);
		if (ret)
			return ret;
		ret = for_real ? apply(vm, s, &section, err) : check(vm, s, &section, err);
		if (ret)
			return error_prefix(err, ret, "%s", section.name);
	}
	if (!ret && !wire_done(&r))
		return error_set(err, -EBADMSG, "%zu bytes behind the saved state", r.size - r.pos);
	return ret;
}

int vmstate_load(struct vm *vm, const void *data, size_t size, bool elapsed, struct error *err)
{
	CLEANUP_FREE struct scratch *s = calloc(1, sizeof(*s));
	CLEANUP_FREE struct clock_plan *plan =
		calloc(1, sizeof(*plan) + vm->nvcpus * sizeof(plan->cpu[0]));
	struct wire_reader r = wire_reader(data, size);
	int ret;

	if (!s || !plan)
		return error_errno(err, -ENOMEM, "saved state");
	*plan = (struct clock_plan){.elapsed = elapsed, .ncpus = vm->nvcpus};
	s->plan = plan;
	ret = cpu_offered(vm, &s->here, err);
	if (!ret)
		ret = walk(vm, s, r, false, err);
	if (!ret)
		ret = walk(vm, s, r, true, err);
	if (ret)
		return ret;
	ret = clock_read(vm, &vm->clock);
	if (ret)
		return error_errno(err, ret, "cannot read the VM's clock");
	/* For the time that passes until it runs. */
	vm->clock_plan = take_ptr(plan);
	return 0;
}
