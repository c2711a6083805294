/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_DOCTOR_KVM_H
#define WISP_DOCTOR_KVM_H

/*
 * Measures what /dev/kvm is worth. Its existence says little: some drivers run the guest's user
 * code fast and interpret its kernel code, which makes Linux guests useless. So a throw-away
 * VM runs a loop in ring 0, timed against the same loop here.
 */

#include <stdint.h>

enum kvm_verdict {
	KVM_NONE,     /* no /dev/kvm */
	KVM_UNUSABLE, /* it cannot be opened, or makes no VM */
	KVM_EMULATED, /* guest kernel code is interpreted: no Linux guests */
	KVM_HARDWARE, /* guest kernel code runs as fast as ours */
};

struct kvm_measure {
	enum kvm_verdict verdict;
	double host_ns, guest_ns; /* a turn of the loop (two instructions); 0: not measured */
	double exit_ns;		  /* one exit to user space and back */
	char reason[200];	  /* for NONE and UNUSABLE: what failed; else "" */
};

/* Takes some milliseconds, at most 0.3 s. Any thread. */
void kvm_measure(struct kvm_measure *ret);

/* "none", "unusable", "emulated", "hardware" */
const char *kvm_verdict_name(enum kvm_verdict verdict);

#endif
