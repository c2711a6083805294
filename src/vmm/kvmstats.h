/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_KVMSTATS_H
#define WISP_VMM_KVMSTATS_H

/*
 * What KVM counts, by name (Linux Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD): of a VM or of
 * a vCPU, from the descriptor that KVM gave for it. Any thread.
 */

#include <stdint.h>

/* A descriptor for the counters of a VM or vCPU; -1: this kernel has none. */
int kvmstats_open(int fd);

/* n counters; -ENOTSUP when any of them is not there: then ret is as it was. */
int kvmstats_read(int fd, unsigned n, const char *const names[], uint64_t *ret);

#endif
