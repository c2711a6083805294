/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VCPU_H
#define WISP_VMM_VCPU_H

/*
 * The vCPUs: one thread each, one loop, one switch over KVM's exit reasons. They run, or are
 * all parked, or are gone.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct boot_files;
struct error;
struct kvm_run;
struct vm;

/* Exits to us, counted; those that KVM handles itself are in its own statistics. */
enum vcpu_exit { EXIT_PIO, EXIT_MMIO, EXIT_INTR, EXIT_OTHER, EXIT_KINDS };

struct vcpu {
	struct vm *vm;
	unsigned index;
	int fd, stats_fd; /* stats_fd: vcpustats.h; -1: KVM has none */
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	_Atomic int tid; /* of the thread as the kernel counts them; there after vcpus_start() */
	bool started;
	bool parked;	     /* vcpu_control.lock */
	bool ended;	     /* does not run any more: parked until the VM is destroyed */
	uint64_t hold_until; /* io_now_ns(); throttled until then; vcpu_control.lock */
	_Atomic uint64_t exits[EXIT_KINDS];
};

/* What all vCPUs obey. Lock order: the VM's lock first, then this one. */
struct vcpu_control {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool pause, quit;
};

/*
 * Creates the vCPUs with CPUID, MSRs and, for the first, the registers of the 64-bit boot
 * protocol with entry as start. After irq_create().
 */
int vcpus_create(struct vm *vm, uint64_t entry, struct error *err);

/* Starts the threads, pinned as the configuration says. */
int vcpus_start(struct vm *vm, struct error *err);

/*
 * Parks every vCPU: when it returns none is in the guest, and exits that were under way are
 * complete. Event thread with the VM's lock held; the lock is let go while waiting. Idempotent.
 */
void vcpus_pause(struct vm *vm);
void vcpus_resume(struct vm *vm);
bool vcpus_paused(const struct vm *vm);

/* Keeps a vCPU out of the guest for ns from now. Event thread. */
void vcpu_hold(struct vcpu *v, uint64_t ns);

/* Ends the threads and closes everything. Without the VM's lock. Accepts half-built VMs. */
void vcpus_destroy(struct vm *vm);

#endif
