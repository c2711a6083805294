/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CLOCK_H
#define WISP_VMM_CLOCK_H

/*
 * The guest's clocks, kvmclock and TSC, over a save and restore. Both are taken at one moment while
 * the vCPUs stand, and set so that they agree again: either they go on from where they stopped
 * (frozen), or the time in between has passed for the guest too (elapsed).
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct vcpu;
struct vm;

/* One moment. */
struct vm_clock {
	uint64_t clock_ns;    /* kvmclock */
	uint64_t realtime_ns; /* UTC, since 1970 */
	uint64_t host_tsc;    /* of this machine, since it started */
};

/* Reads the VM's clock. 0 or -errno. */
int clock_read(struct vm *vm, struct vm_clock *ret);

/* The TSC of a vCPU when the host's was host_tsc. 0 or -errno. */
int clock_guest_tsc(struct vcpu *v, uint64_t host_tsc, uint64_t *ret);

/* What a restored VM's clocks are set to; host_tsc of saved does not count. */
struct clock_plan {
	struct vm_clock saved;
	bool elapsed;
	unsigned ncpus;
	struct clock_cpu {
		uint64_t tsc;
		uint64_t deadline;
		bool armed; /* the LAPIC's timer waits for a deadline */
	} cpu[];	    /* of each vCPU */
};

/*
 * Sets the clock, then each vCPU's TSC and after it its deadline. vCPUs stand. May be called
 * again: the clocks are then right as of the last call.
 */
int clock_apply(struct vm *vm, const struct clock_plan *plan, struct error *err);

#endif
