/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_DOCTOR_PROBES_H
#define WISP_DOCTOR_PROBES_H

/* The probe functions, for the table in probe.c: each fills what it knows of a zeroed result. */

#include "doctor/probe.h"

typedef void probe_fn(const struct probe_context *context, struct probe_result *ret);

/* hardware.c: from files of the kernel */
probe_fn probe_kvm_speed, probe_cpu_features, probe_memory, probe_huge_pages, probe_thp, probe_numa,
	probe_iommu, probe_vfio, probe_virtual_functions, probe_infiniband;

/* system.c: services of the kernel and of the machine */
probe_fn probe_tun, probe_vhost_net, probe_vhost_vsock, probe_user_namespaces, probe_cgroup2,
	probe_io_uring, probe_userfaultfd, probe_lab_programs, probe_slurm, probe_munge,
	probe_nftables;

/* For them: sets the state and formats a text. */
void probe_value(struct probe_result *ret, enum probe_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void probe_missing(struct probe_result *ret, enum probe_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void probe_fix(struct probe_result *ret, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
