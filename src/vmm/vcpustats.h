/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VCPUSTATS_H
#define WISP_VMM_VCPUSTATS_H

/* What KVM counts of a vCPU (Linux Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). */

#include <stdint.h>

struct vcpu;

/* Before the vCPU runs for the first time: later KVM would wait for its exit. */
void vcpustats_open(struct vcpu *v);

/*
 * How many accesses to guest memory KVM had to handle. While writes are tracked nearly all of them
 * are first writes to a page, so it tells which vCPUs write; not where the CPU logs writes by
 * itself (Intel PML). 0 or -ENOTSUP. Any thread.
 */
int vcpustats_faults(const struct vcpu *v, uint64_t *ret);

#endif
