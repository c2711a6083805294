/* SPDX-License-Identifier: Apache-2.0 */
/* Gives new vCPUs their first state. */

#include "vmm/x86/cpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/config.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/model.h"

#define MSR_IA32_MISC_ENABLE 0x1a0
#define MISC_ENABLE_FAST_STRING 1
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLED_WRITE_BACK 0x806
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_MODE_EXTINT 0x700
#define APIC_MODE_NMI 0x400
#define CR0_PE 0x1
#define CR0_ET 0x10
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define EFER_LME 0x100
#define EFER_LMA 0x400

static int build_cpuid(struct vm *vm, const char *model, struct cpuid *c, struct error *err)
{
	struct cpuid_params params = {
		.topology = &vm->config->topology,
		.tsc_khz = vm->host_tsc_khz,
		.invariant_tsc = cpuid_host_invariant_tsc(),
		.tsc_deadline =
			ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
		.ext_dest_id = vm->ioapic != NULL,
		/* Between an injected interrupt and the next exit, QEMU may inject it again. */
		.eoi_exits = cpuid_host_emulated(),
	};
	int r = cpuid_supported(vm->kvm_fd, c, err);

	if (!r)
		r = model_apply(c, model, err);
	if (!r)
		cpuid_configure(c, &params);
	return r;
}

int cpu_offered(struct vm *vm, struct cpuid *ret, struct error *err)
{
	return build_cpuid(vm, "host", ret, err);
}

/* KVM takes the array part of struct kvm_cpuid2 right behind the count. */
static int set_cpuid(struct vcpu *v, struct cpuid *c, struct error *err)
{
	cpuid_set_apic_id(c, &v->vm->config->topology, v->index);
	if (ioctl(v->fd, KVM_SET_CPUID2, c) < 0)
		return error_errno(err, -errno, "cannot set the CPUID of vCPU %u", v->index);
	return 0;
}

static int set_msrs(struct vcpu *v, struct error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} msrs = {
		.head = {.nmsrs = 2},
		.entry = {{.index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
			  {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WRITE_BACK}},
	};
	int n = ioctl(v->fd, KVM_SET_MSRS, &msrs);

	/* KVM stops at the first MSR it refuses and returns how many it took. */
	if (n < 2)
		return error_set(err, -EIO, "KVM refused MSR 0x%x of vCPU %u",
				 msrs.entry[n < 0 ? 0 : n].index, v->index);
	return 0;
}

static int set_lapic(struct vcpu *v, struct error *err)
{
	struct kvm_lapic_state lapic;
	uint32_t lint0 = APIC_MODE_EXTINT, lint1 = APIC_MODE_NMI;

	if (ioctl(v->fd, KVM_GET_LAPIC, &lapic) < 0)
		return error_errno(err, -errno, "cannot read the local APIC of vCPU %u", v->index);
	memcpy(lapic.regs + APIC_LVT_LINT0, &lint0, sizeof(lint0));
	memcpy(lapic.regs + APIC_LVT_LINT1, &lint1, sizeof(lint1));
	if (ioctl(v->fd, KVM_SET_LAPIC, &lapic) < 0)
		return error_errno(err, -errno, "cannot set the local APIC of vCPU %u", v->index);
	return 0;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code,
		.db = !code,
	};
}

static int set_boot_registers(struct vcpu *v, uint64_t entry, struct error *err)
{
	struct kvm_regs regs = {.rip = entry,
				.rsi = BOOT_ZERO_PAGE,
				.rsp = BOOT_STACK,
				.rbp = BOOT_STACK,
				.rflags = 2};
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return error_errno(err, -errno, "cannot read the registers of the first vCPU");
	s.cs = flat_segment(0x10, 0xb, true);
	s.ds = s.es = s.fs = s.gs = s.ss = flat_segment(0x18, 0x3, false);
	s.gdt = (struct kvm_dtable){.base = BOOT_GDT, .limit = 4 * 8 - 1};
	s.cr0 = CR0_PE | CR0_ET | CR0_PG;
	s.cr3 = BOOT_PML4;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) < 0 || ioctl(v->fd, KVM_SET_REGS, &regs) < 0)
		return error_errno(err, -errno, "cannot set the registers of the first vCPU");
	return 0;
}

int cpu_setup(struct vm *vm, uint64_t entry, struct error *err)
{
	int khz = ioctl(vm->vcpus[0].fd, KVM_GET_TSC_KHZ, 0);
	struct cpuid *c = calloc(1, sizeof(*c));
	int r;

	vm->host_tsc_khz = vm->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	vm->cpuid = c;
	r = c ? build_cpuid(vm, vm->config->cpu_model, c, err) : error_errno(err, -ENOMEM, "CPUID");
	for (unsigned i = 0; !r && i < vm->nvcpus; i++) {
		r = set_cpuid(&vm->vcpus[i], c, err);
		if (!r)
			r = set_msrs(&vm->vcpus[i], err);
		if (!r)
			r = set_lapic(&vm->vcpus[i], err);
	}
	return r ? r : set_boot_registers(&vm->vcpus[0], entry, err);
}
