/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks over save and restore (Linux Documentation/virt/kvm/devices/vcpu.rst, 4: the attribute
 * KVM_VCPU_TSC_OFFSET; api.rst: KVM_GET_CLOCK). The TSC follows kvmclock, so that one policy
 * holds for both.
 */

#include "vmm/x86/clock.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#include "lib/error.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define MSR_TSC_DEADLINE 0x6e0

static uint64_t realtime_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

int clock_read(struct vm *vm, struct vm_clock *ret)
{
	struct kvm_clock_data data = {0};

	if (ioctl(vm->fd, KVM_GET_CLOCK, &data) < 0)
		return -errno;
	/* KVM reads all three at once only where its clock follows the TSC. */
	ret->host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : __rdtsc();
	ret->realtime_ns = data.flags & KVM_CLOCK_REALTIME ? data.realtime : realtime_now();
	ret->clock_ns = data.clock;
	return 0;
}

static int tsc_offset(struct vcpu *v, unsigned long request, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

	return ioctl(v->fd, request, &attr) < 0 ? -errno : 0;
}

/* The host's TSC at the guest's frequency. */
static uint64_t scale(const struct vm *vm, uint64_t host_tsc, uint64_t guest_khz)
{
	if (!vm->host_tsc_khz || vm->host_tsc_khz == guest_khz)
		return host_tsc;
	return (uint64_t)((unsigned __int128)host_tsc * guest_khz / vm->host_tsc_khz);
}

static uint64_t guest_khz(struct vcpu *v)
{
	int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint64_t)khz : v->vm->host_tsc_khz;
}

int clock_guest_tsc(struct vcpu *v, uint64_t host_tsc, uint64_t *ret)
{
	uint64_t offset = 0;
	int r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset);

	if (!r)
		*ret = scale(v->vm, host_tsc, guest_khz(v)) + offset;
	return r;
}

static int set_clock(struct vm *vm, const struct clock_plan *plan, struct error *err)
{
	struct kvm_clock_data data = {.clock = plan->saved.clock_ns};
	uint64_t now = realtime_now();

	/*
	 * What KVM_CLOCK_REALTIME does, where KVM can; done here it works everywhere. A host whose
	 * clock is behind the other's lets no time pass.
	 */
	if (plan->elapsed && now > plan->saved.realtime_ns)
		data.clock += now - plan->saved.realtime_ns;
	if (ioctl(vm->fd, KVM_SET_CLOCK, &data) < 0)
		return error_errno(err, -errno, "cannot set the VM's clock");
	return 0;
}

static int set_deadline(struct vcpu *v, uint64_t deadline, struct error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head = {.nmsrs = 1}, .entry = {.index = MSR_TSC_DEADLINE, .data = deadline}};

	if (ioctl(v->fd, KVM_SET_MSRS, &msr) != 1)
		return error_set(err, -EIO, "KVM refused MSR 0x%x (TSC deadline) of vCPU %u",
				 MSR_TSC_DEADLINE, v->index);
	return 0;
}

static int set_tsc(struct vcpu *v, const struct clock_cpu *cpu, const struct clock_plan *plan,
		   const struct vm_clock *now, struct error *err)
{
	int64_t passed = (int64_t)(now->clock_ns - plan->saved.clock_ns);
	uint64_t khz = guest_khz(v);
	uint64_t tsc = cpu->tsc + (uint64_t)((__int128)passed * (int64_t)khz / 1000000);
	uint64_t offset = tsc - scale(v->vm, now->host_tsc, khz);
	int r = tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset);

	if (r)
		return error_errno(err, r, "cannot set the TSC offset of vCPU %u", v->index);
	/*
	 * A deadline that expired while the vCPU stood reads as 0, and its interrupt may be lost:
	 * one too many does no harm.
	 */
	return cpu->armed ? set_deadline(v, cpu->deadline ? cpu->deadline : tsc, err) : 0;
}

int clock_apply(struct vm *vm, const struct clock_plan *plan, struct error *err)
{
	struct vm_clock now;
	int r = set_clock(vm, plan, err);

	if (r)
		return r;
	r = clock_read(vm, &now);
	if (r)
		return error_errno(err, r, "cannot read the VM's clock");
	for (unsigned i = 0; !r && i < plan->ncpus; i++)
		r = set_tsc(&vm->vcpus[i], &plan->cpu[i], plan, &now, err);
	return r;
}
