/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CPUSTATE_H
#define WISP_VMM_CPUSTATE_H

/*
 * The saved state of a vCPU (docs/formats/vm-state.md): cpustate.c describes it, cpusave.c moves it
 * between KVM and this structure in the order KVM needs.
 */

#include <linux/kvm.h>
#include <stdint.h>

#include "vmm/state.h"
#include "vmm/x86/cpuid.h"

struct error;
struct vcpu;
struct vm_clock;

#define CPUSTATE_XSAVE_MAX 16384 /* bytes; AMX needs 11 KiB */
#define CPUSTATE_MSRS_MAX 512
#define CPUSTATE_PARTS 11

struct cpu_state {
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	uint32_t xsave[CPUSTATE_XSAVE_MAX / 4];
	uint64_t xcr0; /* 0: this KVM has none */
	struct kvm_debugregs debug;
	uint32_t lapic[KVM_APIC_REG_SIZE / 4];
	uint64_t tsc;	       /* the guest's, when the VM's clock was read */
	uint64_t tsc_deadline; /* MSR; 0: not armed, or expired */
	uint32_t tsc_khz;
	uint32_t nmsrs;
	struct cpuid cpuid;
	/* Without TSC and TSC_DEADLINE, which have their own fields. */
	uint32_t msr_index[CPUSTATE_MSRS_MAX];
	uint64_t msr_value[CPUSTATE_MSRS_MAX];
	struct kvm_vcpu_events events;
};

/* The CPUSTATE_PARTS parts of a vCPU, over s. */
void cpustate_parts(struct cpu_state *s, struct state_part *ret);

/* What a table cannot check. 0 or -EBADMSG. */
int cpustate_check(const struct cpu_state *s, struct error *err);

/*
 * Reads the state of a parked vCPU; tsc is what the guest's was when clock was taken. s is
 * overwritten. -EOPNOTSUPP when it has state that is not saved (virtual machines of its own).
 */
int cpustate_get(struct vcpu *v, const struct vm_clock *clock, struct cpu_state *s,
		 struct error *err);

/*
 * Gives it to a vCPU that has never run, all but TSC and TSC_DEADLINE: clock_apply() does these
 * for all vCPUs. The error names what KVM refused.
 */
int cpustate_set(struct vcpu *v, const struct cpu_state *s, struct error *err);

/* The frequency of the guest's TSC; 0: KVM does not know it. */
uint32_t cpustate_tsc_khz(struct vcpu *v);

/* The guest's next entry tells it that it was stopped, so that no watchdog of it barks. */
void cpustate_tell_stopped(struct vcpu *v);

#endif
