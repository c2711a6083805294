/* SPDX-License-Identifier: Apache-2.0 */
/* The saved state of a vCPU as tables over KVM's structures. */

#include "vmm/x86/cpustate.h"

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define FIELD(member) STATE_FIELD(struct cpu_state, member)
#define ARRAY(member) STATE_ARRAY(struct cpu_state, member)
#define SEGMENT(seg)                                                                             \
	FIELD(sregs.seg.base), FIELD(sregs.seg.limit), FIELD(sregs.seg.selector),                \
		FIELD(sregs.seg.type), FIELD(sregs.seg.present), FIELD(sregs.seg.dpl),           \
		FIELD(sregs.seg.db), FIELD(sregs.seg.s), FIELD(sregs.seg.l), FIELD(sregs.seg.g), \
		FIELD(sregs.seg.avl), FIELD(sregs.seg.unusable)

/* clang-format off */
static const struct state_field mp_state[] = {
	FIELD(mp.mp_state),
	STATE_END,
};

static const struct state_field regs_state[] = {
	FIELD(regs.rax), FIELD(regs.rbx), FIELD(regs.rcx), FIELD(regs.rdx),
	FIELD(regs.rsi), FIELD(regs.rdi), FIELD(regs.rsp), FIELD(regs.rbp),
	FIELD(regs.r8), FIELD(regs.r9), FIELD(regs.r10), FIELD(regs.r11),
	FIELD(regs.r12), FIELD(regs.r13), FIELD(regs.r14), FIELD(regs.r15),
	FIELD(regs.rip), FIELD(regs.rflags),
	STATE_END,
};

static const struct state_field sregs_state[] = {
	SEGMENT(cs), SEGMENT(ds), SEGMENT(es), SEGMENT(fs), SEGMENT(gs), SEGMENT(ss),
	SEGMENT(tr), SEGMENT(ldt),
	FIELD(sregs.gdt.base), FIELD(sregs.gdt.limit),
	FIELD(sregs.idt.base), FIELD(sregs.idt.limit),
	FIELD(sregs.cr0), FIELD(sregs.cr2), FIELD(sregs.cr3), FIELD(sregs.cr4), FIELD(sregs.cr8),
	FIELD(sregs.efer), FIELD(sregs.apic_base), FIELD(sregs.flags), ARRAY(sregs.pdptrs),
	STATE_END,
};

static const struct state_field xsave_state[] = {
	STATE_TRIMMED(struct cpu_state, xsave),
	STATE_END,
};

static const struct state_field xcrs_state[] = {
	FIELD(xcr0),
	STATE_END,
};

static const struct state_field debug_state[] = {
	ARRAY(debug.db), FIELD(debug.dr6), FIELD(debug.dr7), FIELD(debug.flags),
	STATE_END,
};

static const struct state_field lapic_state[] = {
	ARRAY(lapic),
	STATE_END,
};

static const struct state_field tsc_state[] = {
	FIELD(tsc), FIELD(tsc_deadline), FIELD(tsc_khz),
	STATE_END,
};

static const struct state_field cpuid_state[] = {
	FIELD(cpuid.count),
	/* As struct kvm_cpuid_entry2: leaf, subleaf, flags, eax, ebx, ecx, edx and three zeros. */
	{.name = "cpuid.entry",
	 .offset = offsetof(struct cpu_state, cpuid.entry),
	 .size = sizeof(uint32_t),
	 .count = CPUID_ENTRIES_MAX * (sizeof(struct kvm_cpuid_entry2) / sizeof(uint32_t)),
	 .trim = true},
	STATE_END,
};

static const struct state_field msrs_state[] = {
	FIELD(nmsrs),
	STATE_TRIMMED(struct cpu_state, msr_index),
	STATE_TRIMMED(struct cpu_state, msr_value),
	STATE_END,
};

static const struct state_field events_state[] = {
	FIELD(events.exception.injected), FIELD(events.exception.nr),
	FIELD(events.exception.has_error_code), FIELD(events.exception.pending),
	FIELD(events.exception.error_code),
	FIELD(events.interrupt.injected), FIELD(events.interrupt.nr),
	FIELD(events.interrupt.soft), FIELD(events.interrupt.shadow),
	FIELD(events.nmi.injected), FIELD(events.nmi.pending), FIELD(events.nmi.masked),
	FIELD(events.sipi_vector), FIELD(events.flags),
	FIELD(events.smi.smm), FIELD(events.smi.pending), FIELD(events.smi.smm_inside_nmi),
	FIELD(events.smi.latched_init), FIELD(events.triple_fault.pending),
	FIELD(events.exception_has_payload), FIELD(events.exception_payload),
	STATE_END,
};
/* clang-format on */

void cpustate_parts(struct cpu_state *s, struct state_part *ret)
{
	const struct state_part parts[CPUSTATE_PARTS] = {
		{"mp", mp_state, s},	   {"regs", regs_state, s},	{"sregs", sregs_state, s},
		{"xsave", xsave_state, s}, {"xcrs", xcrs_state, s},	{"debug", debug_state, s},
		{"lapic", lapic_state, s}, {"tsc", tsc_state, s},	{"cpuid", cpuid_state, s},
		{"msrs", msrs_state, s},   {"events", events_state, s},
	};

	memcpy(ret, parts, sizeof(parts));
}

int cpustate_check(const struct cpu_state *s, struct error *err)
{
	if (s->cpuid.count > CPUID_ENTRIES_MAX)
		return error_set(err, -EBADMSG, "%u CPUID entries are more than %u", s->cpuid.count,
				 CPUID_ENTRIES_MAX);
	if (s->nmsrs > CPUSTATE_MSRS_MAX)
		return error_set(err, -EBADMSG, "%u MSRs are more than %u", s->nmsrs,
				 CPUSTATE_MSRS_MAX);
	if (!s->tsc_khz)
		return error_set(err, -EBADMSG, "a TSC of 0 kHz");
	return 0;
}
