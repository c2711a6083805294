/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves a vCPU's state between KVM and struct cpu_state. The order is KVM's: reading MP_STATE
 * may change the local APIC, events come last; on the way back the frequency comes first, CPUID
 * before all that depends on it, the local APIC behind the register with its base and before the
 * MSRs, events last because setting registers clears pending exceptions.
 */

#include "vmm/x86/cpustate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/config.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/x86/clock.h"

#define MSR_TSC 0x10
#define MSR_MCG_CAP 0x179
#define MSR_MC0_CTL 0x400 /* four MSRs a bank */
#define MSR_TSC_DEADLINE 0x6e0
#define HYPERV_FIRST 0x40000000 /* not offered to guests */
#define HYPERV_LAST 0x4000ffff
#define BANKS_MAX 32
#define TSC_TOLERANCE_PPM 1000
#define NO_VMXON (~0ULL)

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[CPUSTATE_MSRS_MAX];
};

static int failed(struct vcpu *v, const char *verb, const char *what, struct error *err)
{
	return error_errno(err, -errno, "cannot %s %s of vCPU %u", verb, what, v->index);
}

static int get(struct vcpu *v, unsigned long request, void *arg, const char *what,
	       struct error *err)
{
	return ioctl(v->fd, request, arg) < 0 ? failed(v, "read", what, err) : 0;
}

static int set(struct vcpu *v, unsigned long request, const void *arg, const char *what,
	       struct error *err)
{
	return ioctl(v->fd, request, arg) < 0 ? failed(v, "set", what, err) : 0;
}

/* A guest that runs virtual machines itself has state that we do not save. */
static int check_nested(struct vcpu *v, struct error *err)
{
	struct kvm_nested_state state = {.size = sizeof(state)};
	bool active;

	if (ioctl(v->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE) <= 0)
		return 0;
	state.hdr.vmx.vmxon_pa = NO_VMXON;
	active = ioctl(v->fd, KVM_GET_NESTED_STATE, &state) < 0 && errno == E2BIG;
	if (state.flags & KVM_STATE_NESTED_GUEST_MODE ||
	    (state.format == KVM_STATE_NESTED_FORMAT_VMX && state.hdr.vmx.vmxon_pa != NO_VMXON))
		active = true;
	return active ? error_set(err, -EOPNOTSUPP,
				  "the guest runs virtual machines of its own: their state cannot "
				  "be saved")
		      : 0;
}

static int get_xsave(struct vcpu *v, struct cpu_state *s, struct error *err)
{
	int size = ioctl(v->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	if (size <= 0)
		return get(v, KVM_GET_XSAVE, s->xsave, "the XSAVE area", err);
	if ((size_t)size > sizeof(s->xsave))
		return error_set(err, -EOPNOTSUPP, "an XSAVE area of %d bytes is larger than %zu",
				 size, sizeof(s->xsave));
	return get(v, KVM_GET_XSAVE2, s->xsave, "the XSAVE area", err);
}

static int get_xcr0(struct vcpu *v, struct cpu_state *s, struct error *err)
{
	struct kvm_xcrs xcrs = {0};
	int r;

	if (ioctl(v->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) <= 0)
		return 0;
	r = get(v, KVM_GET_XCRS, &xcrs, "XCR0", err);
	for (uint32_t i = 0; !r && i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (!xcrs.xcrs[i].xcr)
			s->xcr0 = xcrs.xcrs[i].value;
	return r;
}

static bool is_saved(uint32_t index)
{
	return index != MSR_TSC && index != MSR_TSC_DEADLINE &&
	       (index < HYPERV_FIRST || index > HYPERV_LAST);
}

/* Reads one MSR; false when KVM does not have it. */
static bool read_msr(struct vcpu *v, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head = {.nmsrs = 1}, .entry = {.index = index}};

	if (ioctl(v->fd, KVM_GET_MSRS, &msr) != 1)
		return false;
	*value = msr.entry.data;
	return true;
}

/* KVM's list of what has to be saved. */
static int list_msrs(struct vcpu *v, struct msrs *msrs, struct error *err)
{
	CLEANUP_FREE struct kvm_msr_list *list =
		calloc(1, sizeof(*list) + CPUSTATE_MSRS_MAX * sizeof(list->indices[0]));

	if (!list)
		return error_errno(err, -ENOMEM, "MSRs");
	list->nmsrs = CPUSTATE_MSRS_MAX;
	if (ioctl(v->vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		return error_errno(err, -errno, "cannot read KVM's list of %u MSRs", list->nmsrs);
	for (uint32_t i = 0; i < list->nmsrs; i++)
		if (is_saved(list->indices[i]))
			msrs->entry[msrs->head.nmsrs++].index = list->indices[i];
	return 0;
}

/* Reads all MSRs that can be read: KVM stops at each that this guest does not have. */
static void read_listed(struct vcpu *v, struct msrs *msrs)
{
	uint32_t done = 0, total = msrs->head.nmsrs;

	while (done < total) {
		int n;

		/* KVM wants the head in front of the entries it reads: they are moved there. */
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry[32];
		} some = {.head.nmsrs = total - done < 32 ? total - done : 32};

		memcpy(some.entry, &msrs->entry[done], some.head.nmsrs * sizeof(some.entry[0]));
		n = ioctl(v->fd, KVM_GET_MSRS, &some);
		if (n < 0)
			n = 0;
		memcpy(&msrs->entry[done], some.entry, (size_t)n * sizeof(some.entry[0]));
		done += (uint32_t)n;
		if ((uint32_t)n == some.head.nmsrs)
			continue;
		memmove(&msrs->entry[done], &msrs->entry[done + 1],
			(total - done - 1) * sizeof(msrs->entry[0]));
		total--;
	}
	msrs->head.nmsrs = total;
}

/* The banks of machine check are in no list. Those that are zero need not be told. */
static void add_banks(struct vcpu *v, struct msrs *msrs)
{
	uint64_t cap = 0, value;
	unsigned banks;

	if (!read_msr(v, MSR_MCG_CAP, &cap))
		return;
	banks = cap & 0xff;
	for (uint32_t i = 0; i < 4 * (banks < BANKS_MAX ? banks : BANKS_MAX); i++)
		if (msrs->head.nmsrs < CPUSTATE_MSRS_MAX && read_msr(v, MSR_MC0_CTL + i, &value) &&
		    value)
			msrs->entry[msrs->head.nmsrs++] =
				(struct kvm_msr_entry){.index = MSR_MC0_CTL + i, .data = value};
}

static int get_msrs(struct vcpu *v, struct cpu_state *s, struct error *err)
{
	CLEANUP_FREE struct msrs *msrs = calloc(1, sizeof(*msrs));
	int r = msrs ? list_msrs(v, msrs, err) : error_errno(err, -ENOMEM, "MSRs");

	if (r)
		return r;
	read_listed(v, msrs);
	add_banks(v, msrs);
	s->nmsrs = msrs->head.nmsrs;
	for (uint32_t i = 0; i < s->nmsrs; i++) {
		s->msr_index[i] = msrs->entry[i].index;
		s->msr_value[i] = msrs->entry[i].data;
	}
	return 0;
}

uint32_t cpustate_tsc_khz(struct vcpu *v)
{
	int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

static int get_tsc(struct vcpu *v, const struct vm_clock *clock, struct cpu_state *s,
		   struct error *err)
{
	int r = clock_guest_tsc(v, clock->host_tsc, &s->tsc);

	if (r)
		return error_errno(err, r, "cannot read the TSC offset of vCPU %u (Linux 5.16)",
				   v->index);
	s->tsc_khz = cpustate_tsc_khz(v);
	if (!s->tsc_khz)
		return error_set(err, -EOPNOTSUPP, "KVM does not know the TSC's frequency");
	read_msr(v, MSR_TSC_DEADLINE, &s->tsc_deadline);
	return 0;
}

int cpustate_get(struct vcpu *v, const struct vm_clock *clock, struct cpu_state *s,
		 struct error *err)
{
	int r = check_nested(v, err);

	memset(s, 0, sizeof(*s));
	if (!r)
		r = get(v, KVM_GET_MP_STATE, &s->mp, "the state", err);
	if (!r)
		r = get(v, KVM_GET_REGS, &s->regs, "the registers", err);
	if (!r)
		r = get(v, KVM_GET_SREGS2, &s->sregs, "the system registers", err);
	if (!r)
		r = get_xsave(v, s, err);
	if (!r)
		r = get_xcr0(v, s, err);
	if (!r)
		r = get(v, KVM_GET_DEBUGREGS, &s->debug, "the debug registers", err);
	if (!r)
		r = get(v, KVM_GET_LAPIC, s->lapic, "the local APIC", err);
	if (!r)
		r = get_tsc(v, clock, s, err);
	/* What KVM was given: one that does not intercept CPUID reads the host's instead. */
	s->cpuid = *v->vm->cpuid;
	cpuid_set_apic_id(&s->cpuid, &v->vm->config->topology, v->index);
	if (!r)
		r = get_msrs(v, s, err);
	if (!r)
		r = get(v, KVM_GET_VCPU_EVENTS, &s->events, "the pending events", err);
	return r;
}

static int set_tsc_khz(struct vcpu *v, uint32_t khz, struct error *err)
{
	uint32_t host = v->vm->host_tsc_khz;
	uint64_t apart = khz > host ? khz - host : host - khz;
	bool scales = ioctl(v->vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;

	if (khz == host)
		return 0;
	/* Two calibrations of one clock differ by less; without scaling it stays as it is. */
	if (!scales && apart * 1000000 <= (uint64_t)host * TSC_TOLERANCE_PPM)
		return 0;
	if (!scales)
		return error_set(
			err, -EOPNOTSUPP,
			"the guest's TSC runs at %u kHz, this machine's at %u kHz, and its "
			"KVM cannot scale it",
			khz, host);
	if (ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
		return failed(v, "set", "the TSC frequency", err);
	v->vm->tsc_khz = khz;
	return 0;
}

static int set_xcr0(struct vcpu *v, uint64_t xcr0, struct error *err)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.value = xcr0}}};

	return xcr0 ? set(v, KVM_SET_XCRS, &xcrs, "XCR0", err) : 0;
}

/* A host with a smaller area than what is saved refuses the features it does not know. */
static int set_xsave(struct vcpu *v, const struct cpu_state *s, struct error *err)
{
	int size = ioctl(v->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	size_t here = size > 4096 ? (size_t)size : 4096;

	for (size_t i = here / 4; i < CPUSTATE_XSAVE_MAX / 4; i++)
		if (s->xsave[i])
			return error_set(err, -EOPNOTSUPP,
					 "the XSAVE area of vCPU %u has more than the %zu bytes "
					 "that this KVM knows",
					 v->index, here);
	return set(v, KVM_SET_XSAVE, s->xsave, "the XSAVE area", err);
}

/*
 * KVM stops at the first MSR it refuses and returns how many it took. One that has the value
 * already need not be set; one that is zero and unknown here is a feature the guest does not use.
 */
static int set_msrs(struct vcpu *v, const struct cpu_state *s, struct error *err)
{
	for (uint32_t done = 0; done < s->nmsrs;) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry[32];
		} some = {.head.nmsrs = s->nmsrs - done < 32 ? s->nmsrs - done : 32};
		uint64_t now = 0;
		int n;

		for (uint32_t i = 0; i < some.head.nmsrs; i++)
			some.entry[i] = (struct kvm_msr_entry){.index = s->msr_index[done + i],
							       .data = s->msr_value[done + i]};
		n = ioctl(v->fd, KVM_SET_MSRS, &some);
		if (n < 0)
			n = 0;
		done += (uint32_t)n;
		if ((uint32_t)n == some.head.nmsrs)
			continue;
		if ((!read_msr(v, s->msr_index[done], &now) && s->msr_value[done]) ||
		    now != s->msr_value[done])
			return error_set(err, -EOPNOTSUPP,
					 "KVM refused MSR 0x%x = 0x%llx of vCPU %u",
					 s->msr_index[done], (unsigned long long)s->msr_value[done],
					 v->index);
		done++;
	}
	return 0;
}

int cpustate_set(struct vcpu *v, const struct cpu_state *s, struct error *err)
{
	int r = set_tsc_khz(v, s->tsc_khz, err);

	if (!r)
		r = set(v, KVM_SET_CPUID2, &s->cpuid, "the CPUID", err);
	if (!r)
		r = set(v, KVM_SET_MP_STATE, &s->mp, "the state", err);
	if (!r)
		r = set(v, KVM_SET_REGS, &s->regs, "the registers", err);
	if (!r)
		r = set(v, KVM_SET_SREGS2, &s->sregs, "the system registers", err);
	if (!r)
		r = set_xsave(v, s, err);
	if (!r)
		r = set_xcr0(v, s->xcr0, err);
	if (!r)
		r = set(v, KVM_SET_DEBUGREGS, &s->debug, "the debug registers", err);
	if (!r)
		r = set(v, KVM_SET_LAPIC, s->lapic, "the local APIC", err);
	if (!r)
		r = set_msrs(v, s, err);
	if (!r)
		r = set(v, KVM_SET_VCPU_EVENTS, &s->events, "the pending events", err);
	if (!r && !v->index)
		*v->vm->cpuid = s->cpuid;
	return r;
}

void cpustate_tell_stopped(struct vcpu *v)
{
	/* EINVAL: the guest has no kvmclock. */
	ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
}
