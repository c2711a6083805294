/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the vCPUs. */

#include "vmm/vcpu.h"

#include <asm/prctl.h>
#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/config.h"
#include "vmm/vcpustats.h"
#include "vmm/vm.h"
#include "vmm/x86/cpu.h"

#define KICK_SIGNAL SIGUSR1
#define XTILEDATA 18		/* the XSAVE component of AMX tiles */
#define STACK_SIZE (128 * 1024) /* touched pages count, and they are few */

/* The signal only has to interrupt KVM_RUN; immediate_exit closes the race before it. */
static void on_kick(int signo)
{
	(void)signo;
}

static void kick(struct vcpu *v)
{
	v->run->immediate_exit = 1;
	pthread_kill(v->thread, KICK_SIGNAL);
}

static void count(struct vcpu *v, enum vcpu_exit kind)
{
	/* One writer: the vCPU's thread. */
	atomic_store_explicit(&v->exits[kind],
			      atomic_load_explicit(&v->exits[kind], memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

static void handle_io(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	count(v, EXIT_PIO);
	SCOPED_LOCK(&vm->lock);
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			bus_read(&vm->pio, run->io.port, data, run->io.size);
		else
			bus_write(&vm->pio, run->io.port, data, run->io.size);
	}
}

static void handle_mmio(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct kvm_run *run = v->run;

	count(v, EXIT_MMIO);
	SCOPED_LOCK(&vm->lock);
	if (run->mmio.is_write)
		bus_write(&vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(&vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

/* The vCPU runs no further: what it would do now comes after the end of the VM. */
static void end_with(struct vcpu *v, enum vm_end why)
{
	v->ended = true;
	vm_end(v->vm, why);
}

/* The guest or KVM cannot go on: the registers tell where. */
static void give_up(struct vcpu *v, enum vm_end why, const char *what, uint64_t detail)
{
	struct kvm_regs regs = {0};
	struct kvm_sregs sregs = {0};

	ioctl(v->fd, KVM_GET_REGS, &regs);
	ioctl(v->fd, KVM_GET_SREGS, &sregs);
	log_error(&v->vm->log, "vcpu",
		  "vCPU %u: %s (0x%llx) at rip 0x%llx, rsp 0x%llx, cr0 0x%llx, cr2 0x%llx, cr3 "
		  "0x%llx",
		  v->index, what, (unsigned long long)detail, regs.rip, regs.rsp, sregs.cr0,
		  sregs.cr2, sregs.cr3);
	end_with(v, why);
}

static void handle_system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		end_with(v, VM_POWER_OFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		end_with(v, VM_REBOOT);
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		end_with(v, VM_PANIC);
		break;
	}
}

static void handle_exit(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(v);
		return;
	case KVM_EXIT_MMIO:
		handle_mmio(v);
		return;
	case KVM_EXIT_INTR:
		count(v, EXIT_INTR);
		return;
	}
	count(v, EXIT_OTHER);
	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		give_up(v, VM_TRIPLE_FAULT, "triple fault", 0);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		handle_system_event(v);
		break;
	case KVM_EXIT_IOAPIC_EOI: /* our pins are edge-triggered: nothing waits for it */
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT:
		break;
	case KVM_EXIT_FAIL_ENTRY:
		give_up(v, VM_ERROR, "the CPU refused to enter the guest",
			run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		give_up(v, VM_ERROR, "KVM could not emulate an instruction",
			run->internal.suberror);
		break;
	default:
		give_up(v, VM_ERROR, "unexpected exit", run->exit_reason);
	}
}

/*
 * Throttled: waits for the time, or for a pause or the end, which obey() looks for when KVM_RUN
 * returns at once.
 */
static void wait_held(struct vcpu *v, struct vcpu_control *c)
{
	struct timespec until = {.tv_sec = (time_t)(v->hold_until / 1000000000),
				 .tv_nsec = (long)(v->hold_until % 1000000000)};

	while (!c->pause && !c->quit && v->hold_until > io_now_ns())
		pthread_cond_clockwait(&c->changed, &c->lock, CLOCK_MONOTONIC, &until);
	v->hold_until = 0;
	v->run->immediate_exit = c->pause || c->quit;
}

/*
 * A kick arrived: KVM_RUN returned with EINTR, so the previous exit's data has been consumed.
 * Waits while the VM is paused, or to the end. Returns false when the thread has to end.
 */
static bool obey(struct vcpu *v)
{
	struct vcpu_control *c = v->vm->control;
	bool quit;

	pthread_mutex_lock(&c->lock);
	v->run->immediate_exit = 0;
	while ((c->pause || v->ended) && !c->quit) {
		/* Told once: vCPUs that told each other all the time would never sleep. */
		if (!v->parked)
			pthread_cond_broadcast(&c->changed);
		v->parked = true;
		pthread_cond_wait(&c->changed, &c->lock);
	}
	v->parked = false;
	if (v->hold_until)
		wait_held(v, c);
	quit = c->quit;
	pthread_mutex_unlock(&c->lock);
	return !quit;
}

static void run_loop(struct vcpu *v)
{
	while (!v->ended) {
		int r = ioctl(v->fd, KVM_RUN, 0);

		if (!r) {
			handle_exit(v);
		} else if (errno == EINTR || errno == EAGAIN) {
			count(v, EXIT_INTR);
			if (!obey(v))
				return;
		} else {
			give_up(v, VM_ERROR, "KVM_RUN failed with error number", (uint64_t)errno);
		}
	}
	obey(v);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct vcpu_control *c = v->vm->control;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	prctl(PR_SET_NAME, name);
	pthread_mutex_lock(&c->lock);
	v->tid = gettid();
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (obey(v))
		run_loop(v);
	return NULL;
}

static int create_one(struct vm *vm, unsigned index, size_t run_size, struct error *err)
{
	struct vcpu *v = &vm->vcpus[index];

	*v = (struct vcpu){.vm = vm, .index = index, .fd = -1, .stats_fd = -1};
	/* KVM's vCPU id is the APIC id the vCPU starts with. */
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU,
		      (unsigned long)topology_apic_id(&vm->config->topology, index));
	if (v->fd < 0)
		return error_errno(err, -errno, "cannot create vCPU %u", index);
	v->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return error_errno(err, -errno, "cannot map the state of vCPU %u", index);
	}
	v->run_size = run_size;
	vcpustats_open(v);
	return 0;
}

static int create_control(struct vm *vm)
{
	struct vcpu_control *c = calloc(1, sizeof(*c));
	struct sigaction action = {.sa_handler = on_kick};

	if (!c)
		return -ENOMEM;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	vm->control = c;
	/* Without SA_RESTART, so that KVM_RUN returns. */
	return sigaction(KICK_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

/*
 * State that is large (AMX) is given to the vCPUs of a process that asked before it made the
 * first. Without it the guest's CPUs have no AMX, as KVM then does not list it.
 */
static void permit_large_state(struct vm *vm)
{
	uint64_t supported = 0;
	struct kvm_device_attr attr = {.attr = KVM_X86_XCOMP_GUEST_SUPP,
				       .addr = (uintptr_t)&supported};

	if (ioctl(vm->kvm_fd, KVM_GET_DEVICE_ATTR, &attr) < 0 || !(supported & 1ULL << XTILEDATA))
		return;
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) < 0)
		log_warn(&vm->log, "vcpu", "no AMX for the guest: %s", strerror(errno));
}

int vcpus_create(struct vm *vm, uint64_t entry, struct error *err)
{
	unsigned n = topology_vcpus(&vm->config->topology);
	int run_size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int r = create_control(vm);

	permit_large_state(vm);
	vm->vcpus = calloc(n, sizeof(*vm->vcpus));
	if (r || !vm->vcpus || run_size < 0)
		return error_errno(err, r ? r : run_size < 0 ? -errno : -ENOMEM, "vCPUs");
	for (unsigned i = 0; !r && i < n; i++) {
		vm->nvcpus = i + 1;
		r = create_one(vm, i, (size_t)run_size, err);
	}
	return r ? r : cpu_setup(vm, entry, err);
}

/* The n-th CPU of the pinning list, counted round. */
static int pinned_cpu(const cpu_set_t *set, unsigned n)
{
	n %= (unsigned)CPU_COUNT(set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set) && !n--)
			return cpu;
	return -1;
}

static int start_one(struct vcpu *v, pthread_attr_t *attr, struct error *err)
{
	const struct vm_config *config = v->vm->config;
	cpu_set_t one;
	int r;

	if (config->pinned) {
		CPU_ZERO(&one);
		CPU_SET(pinned_cpu(&config->pin, v->index), &one);
		pthread_attr_setaffinity_np(attr, sizeof(one), &one);
	}
	r = -pthread_create(&v->thread, attr, vcpu_thread, v);
	if (r == -EINVAL && config->pinned)
		return error_set(err, r,
				 "cannot pin vCPU %u to CPU %d: this process may not run there",
				 v->index, pinned_cpu(&config->pin, v->index));
	if (r)
		return error_errno(err, r, "cannot start vCPU %u", v->index);
	v->started = true;
	return 0;
}

/* Who accounts for threads is told their numbers when the control socket is served. */
static void wait_counted(struct vm *vm)
{
	struct vcpu_control *c = vm->control;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < vm->nvcpus; i++)
		while (!vm->vcpus[i].tid)
			pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

int vcpus_start(struct vm *vm, struct error *err)
{
	pthread_attr_t attr;
	sigset_t block, old;
	int r = 0;

	/* Signals are the event thread's; only the kick may reach a vCPU. */
	sigfillset(&block);
	sigdelset(&block, KICK_SIGNAL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	for (unsigned i = 0; !r && i < vm->nvcpus; i++)
		r = start_one(&vm->vcpus[i], &attr, err);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!r)
		wait_counted(vm);
	return r;
}

static void wait_parked(struct vm *vm)
{
	struct vcpu_control *c = vm->control;

	for (unsigned i = 0; i < vm->nvcpus; i++)
		while (vm->vcpus[i].started && !vm->vcpus[i].parked)
			pthread_cond_wait(&c->changed, &c->lock);
}

void vcpus_pause(struct vm *vm)
{
	struct vcpu_control *c = vm->control;

	/* A vCPU that is to park may be waiting for the VM's lock. */
	pthread_mutex_unlock(&vm->lock);
	pthread_mutex_lock(&c->lock);
	c->pause = true;
	/* Signal all, then wait for all: the pause is as long as the slowest, not the sum. */
	for (unsigned i = 0; i < vm->nvcpus; i++)
		if (vm->vcpus[i].started && !vm->vcpus[i].parked)
			kick(&vm->vcpus[i]);
	pthread_cond_broadcast(&c->changed); /* for those that are throttled */
	wait_parked(vm);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_lock(&vm->lock);
}

void vcpus_resume(struct vm *vm)
{
	struct vcpu_control *c = vm->control;

	pthread_mutex_lock(&c->lock);
	c->pause = false;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void vcpu_hold(struct vcpu *v, uint64_t ns)
{
	struct vcpu_control *c = v->vm->control;

	pthread_mutex_lock(&c->lock);
	if (v->started && !v->parked && !c->pause) {
		v->hold_until = io_now_ns() + ns;
		kick(v);
	}
	pthread_mutex_unlock(&c->lock);
}

bool vcpus_paused(const struct vm *vm)
{
	return vm->control->pause;
}

static void end_threads(struct vm *vm)
{
	struct vcpu_control *c = vm->control;

	pthread_mutex_lock(&c->lock);
	c->quit = true;
	for (unsigned i = 0; i < vm->nvcpus; i++)
		if (vm->vcpus[i].started)
			kick(&vm->vcpus[i]);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < vm->nvcpus; i++)
		if (vm->vcpus[i].started)
			pthread_join(vm->vcpus[i].thread, NULL);
}

void vcpus_destroy(struct vm *vm)
{
	if (!vm->control)
		return;
	end_threads(vm);
	for (unsigned i = 0; i < vm->nvcpus; i++) {
		struct vcpu *v = &vm->vcpus[i];

		if (v->run)
			munmap(v->run, v->run_size);
		if (v->stats_fd >= 0)
			close(v->stats_fd);
		if (v->fd >= 0)
			close(v->fd);
	}
	free(vm->vcpus);
	vm->vcpus = NULL;
	vm->nvcpus = 0;
	pthread_cond_destroy(&vm->control->changed);
	pthread_mutex_destroy(&vm->control->lock);
	free(vm->control);
	vm->control = NULL;
}
