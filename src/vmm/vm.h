/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VM_H
#define WISP_VMM_VM_H

/*
 * The virtual machine: what every part of the VMM needs to reach. One process runs one VM,
 * but nothing here is global, so that tests can hold several.
 *
 * Threads: one event thread (runs loop), one thread per vCPU. The lock is held while a
 * device callback of the loop runs and while a vCPU dispatches an exit to a bus; device code
 * therefore never runs twice at once and needs no lock of its own.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/log.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/memory.h"
#include "vmm/x86/clock.h"

struct clock_plan;
struct cpuid;
struct device;
struct dirty;
struct error;
struct ioapic;
struct irq_routes;
struct loop;
struct pci_host;
struct throttle;
struct userfault;
struct vcpu;
struct vcpu_control;
struct vfio;
struct vm_config;

/* Why the VM ended. The process's exit code follows (docs/man/wisp-vmm.1.scd). */
enum vm_end {
	VM_RUNNING = 0,
	VM_POWER_OFF,	 /* the guest's ACPI S5, exit code 0 */
	VM_REBOOT,	 /* with --on-reboot exit */
	VM_STOPPED,	 /* the control socket's stop or a signal */
	VM_PANIC,	 /* the guest kernel told us it panicked */
	VM_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
	VM_ERROR,	 /* KVM or a thread of ours failed */
};

/* Whether there is something to run. */
enum vm_phase {
	VM_BOOTED = 0,	/* from a kernel, or from a saved state that was loaded */
	VM_INCOMING,	/* waits for a saved state */
	VM_LOAD_FAILED, /* half of one is in it */
};

struct vm {
	struct log log;
	struct loop *loop;
	pthread_mutex_t lock;

	int kvm_fd, fd; /* /dev/kvm and the VM */
	struct memory mem;
	struct bus pio, mmio;
	struct irq_routes *routes; /* irq.c */
	struct ioapic *ioapic;	   /* with IRQCHIP_SPLIT, else NULL */
	struct pci_host *pci;

	struct device **devices;
	unsigned ndevices;
	struct vcpu *vcpus;
	struct vcpu_control *control;
	unsigned nvcpus;

	/* Save and restore. */
	enum vm_phase phase;
	char *load_error;	       /* why, with VM_LOAD_FAILED */
	struct cpuid *cpuid;	       /* what the guest was given; KVM need not tell that */
	uint32_t host_tsc_khz;	       /* 0: unknown */
	uint32_t tsc_khz;	       /* the guest's */
	struct vm_clock clock;	       /* when it was paused last */
	struct clock_plan *clock_plan; /* of a state that was loaded and has not run yet */
	void *saved;		       /* vmstate.c: the state as of this pause */
	size_t saved_size;
	struct dirty *dirty;	     /* dirty.c: while writes are tracked */
	struct userfault *userfault; /* userfault.c: while somebody serves faults */
	struct throttle *throttle;   /* throttle.c: while vCPUs are slowed down */
	struct vfio *vfio;	     /* vfio-group.c: while the VM has devices of the host */

	const struct vm_config *config;
	_Atomic int end; /* enum vm_end */
};

struct boot_files;

/* Fills vm with nothing yet; from here vm_destroy() is safe. The loop stays the caller's. */
void vm_init(struct vm *vm, const struct vm_config *config, struct loop *loop);

/*
 * Builds everything up to vCPUs that are ready to start; with files NULL a machine that waits for
 * a saved state: pause it before vcpus_start(). On failure: vm_destroy().
 */
int vm_create(struct vm *vm, const struct vm_config *config, const struct boot_files *files,
	      struct error *err);

/* Ends the vCPUs and frees everything. Without the lock, loop not running. */
void vm_destroy(struct vm *vm);

/*
 * Stops vCPUs, then devices; afterwards nothing touches guest memory. Lock held, event thread.
 * 0 or -errno (the VM runs on). Idempotent, as is vm_resume().
 */
int vm_pause(struct vm *vm);

/* Lets it run (on). Fails, and it stays paused, when there is nothing to run. */
int vm_resume(struct vm *vm, struct error *err);

/* A callback of the guest asks for the end (or the reboot) of the VM. Any thread. */
void vm_end(struct vm *vm, enum vm_end why);

/* Gives guest RAM to KVM, or changes the flags it was given with (KVM_MEM_LOG_DIRTY_PAGES). */
int vm_map_memory(struct vm *vm, uint32_t flags, struct error *err);

/* Lets all devices have, or let go of, what only one VM may have (device_ops.claim). */
int vm_claim(struct vm *vm, bool claim, struct error *err);

/* Registers a device; the VM destroys it. Sets dev->id from its kind and count. */
int vm_add_device(struct vm *vm, struct device *dev, struct error *err);

/* ioeventfd on an MMIO or port address: a write of any length (len 0) or of len bytes. */
int vm_ioeventfd(struct vm *vm, uint64_t addr, unsigned len, bool pio, int eventfd, bool add);

#endif
