/* SPDX-License-Identifier: Apache-2.0 */
/* The table of facts. */

#include "doctor/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "doctor/probes.h"

const struct probe probes[] = {
	{"kvm", "KVM", probe_kvm_speed,
	 "Linux guests run in the lab: emulated nodes with a complete KVM (wisp lab)",
	 "modprobe kvm-intel || modprobe kvm-amd"},
	{"cpu", "CPUs", probe_cpu_features, "guests get what is there", ""},
	{"memory", "Memory", probe_memory, "guests with less memory", ""},
	{"hugepages", "Huge pages", probe_huge_pages,
	 "guest memory of 4 KiB pages, or transparent huge pages",
	 "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"},
	{"thp", "Transparent huge pages", probe_thp, "reserved huge pages, or 4 KiB pages",
	 "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"},
	{"numa", "NUMA", probe_numa, "one node is assumed", ""},
	{"iommu", "IOMMU", probe_iommu, "no device passthrough; virtio devices instead",
	 "boot with intel_iommu=on (Intel) and the IOMMU enabled in the firmware"},
	{"tun", "Tap devices", probe_tun, "no networks for guests and labs", "modprobe tun"},
	{"vhost-net", "vhost-net", probe_vhost_net, "the VMM moves packets itself",
	 "modprobe vhost_net"},
	{"vhost-vsock", "vhost-vsock", probe_vhost_vsock, "the VMM's own vsock",
	 "modprobe vhost_vsock"},
	{"vfio", "VFIO devices", probe_vfio, "virtio devices", "modprobe vfio-pci"},
	{"sriov", "Virtual functions", probe_virtual_functions,
	 "whole devices by VFIO, or virtio devices",
	 "echo N > /sys/bus/pci/devices/ADDRESS/sriov_numvfs"},
	{"infiniband", "InfiniBand", probe_infiniband, "MPI over virtio-net",
	 "load the adapter's driver (modprobe mlx5_ib)"},
	{"userns", "User namespaces", probe_user_namespaces, "networks and labs need root",
	 "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"},
	{"cgroup2", "cgroup v2", probe_cgroup2, "no limits or accounting for each VM",
	 "boot with systemd.unified_cgroup_hierarchy=1"},
	{"io_uring", "io_uring", probe_io_uring, "disks are served by threads",
	 "sysctl kernel.io_uring_disabled=0"},
	{"userfaultfd", "userfaultfd", probe_userfaultfd,
	 "restores read all memory before the guest runs", "a kernel with CONFIG_USERFAULTFD"},
	{"lab", "Programs of the lab", probe_lab_programs, "no emulated nodes",
	 "apt-get install qemu-system-x86"},
	{"slurm", "Slurm", probe_slurm, "a hosts file, or this machine alone",
	 "apt-get install slurm-client"},
	{"munge", "MUNGE", probe_munge, "nodes know each other by a key (wispd --key)",
	 "apt-get install munge"},
	{"nftables", "nftables", probe_nftables, "no networks of clusters over several nodes",
	 "apt-get install nftables"},
	{0},
};

void probe_value(struct probe_result *ret, enum probe_state state, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret->value, sizeof(ret->value), fmt, ap);
	va_end(ap);
	ret->state = state;
}

void probe_missing(struct probe_result *ret, enum probe_state state, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret->missing, sizeof(ret->missing), fmt, ap);
	va_end(ap);
	ret->state = state;
}

void probe_fix(struct probe_result *ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret->fix, sizeof(ret->fix), fmt, ap);
	va_end(ap);
}

const struct probe *probe_find(const char *name)
{
	for (const struct probe *p = probes; p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

void probe_run(const struct probe *probe, const struct probe_context *context,
	       struct probe_result *ret)
{
	*ret = (struct probe_result){0};
	probe->run(context, ret);
	if (ret->state != PROBE_OK && !ret->fix[0])
		probe_fix(ret, "%s", probe->fix);
}

const char *probe_state_name(enum probe_state state)
{
	static const char *const names[] = {"ok", "less", "missing"};

	return names[state];
}

enum kvm_verdict probe_kvm(char *reason, size_t size)
{
	struct kvm_measure measure;
	struct probe_context context = {.root = "", .kvm = &measure};
	struct probe_result result;

	kvm_measure(&measure);
	if (!size)
		return measure.verdict;
	*reason = 0;
	if (measure.verdict != KVM_HARDWARE) {
		probe_run(probe_find("kvm"), &context, &result);
		snprintf(reason, size,
			 "this machine cannot run Linux guests itself: %s. An emulated node can: "
			 "wisp lab up",
			 result.missing);
	}
	return measure.verdict;
}
