/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CPUID_H
#define WISP_VMM_CPUID_H

/*
 * The CPUID of the guest: what KVM supports, reduced to a model, with our topology, caches,
 * clock and hypervisor leaves (Intel SDM volume 2 CPUID; AMD64 volume 3 appendix E; Linux
 * Documentation/virt/kvm/x86/cpuid.rst).
 */

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/x86/topology.h"

struct error;

#define CPUID_ENTRIES_MAX 128

struct cpuid {
	uint32_t count, padding; /* as struct kvm_cpuid2, which has a flexible array */
	struct kvm_cpuid_entry2 entry[CPUID_ENTRIES_MAX];
};

/* Reads what KVM supports. */
int cpuid_supported(int kvm_fd, struct cpuid *ret, struct error *err);

struct cpuid_params {
	const struct topology *topology;
	unsigned tsc_khz;   /* 0: unknown */
	bool invariant_tsc; /* the host's TSC is invariant */
	bool tsc_deadline;  /* KVM's LAPIC has the TSC deadline timer */
	bool ext_dest_id;   /* 15-bit MSI destinations work: the irqchip is split */
	bool eoi_exits;	    /* the guest ends each interrupt by an exit: no kvm.pv_eoi */
};

/* Turns the supported CPUID into the VM's: all but the fields that differ per vCPU. */
void cpuid_configure(struct cpuid *cpuid, const struct cpuid_params *params);

/* Writes vCPU index's APIC id where CPUID shows it. */
void cpuid_set_apic_id(struct cpuid *cpuid, const struct topology *topology, unsigned index);

/* The entry of a leaf (and subleaf where it has any), or NULL. */
struct kvm_cpuid_entry2 *cpuid_find(struct cpuid *cpuid, uint32_t leaf, uint32_t subleaf);

/* The CPU this process runs on has an invariant TSC. */
bool cpuid_host_invariant_tsc(void);

/* QEMU emulates the CPU that this process runs on (a node of a lab, say). */
bool cpuid_host_emulated(void);

#endif
