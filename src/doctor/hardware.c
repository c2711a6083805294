/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of the hardware, as the kernel shows it. */

#include "doctor/probes.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lib/tree.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/parse.h"

#define HUGE_2M "/sys/kernel/mm/hugepages/hugepages-2048kB"
#define HUGE_1G "/sys/kernel/mm/hugepages/hugepages-1048576kB"

/* A word of the first "flags" line of /proc/cpuinfo. */
static bool cpu_flag(const char *root, const char *flag)
{
	CLEANUP_FREE char *path = io_format("%s/proc/cpuinfo", root);
	CLEANUP_FREE char *text = NULL;
	size_t len = strlen(flag);
	char *line;

	if (!path || io_read_file(path, 16 << 20, &text, NULL) < 0)
		return false;
	line = strstr(text, "\nflags");
	if (!line)
		return false;
	line[1 + strcspn(line + 1, "\n")] = 0;
	for (char *at = line; (at = strstr(at + 1, flag));)
		if (at[-1] == ' ' && (at[len] == ' ' || !at[len]))
			return true;
	return false;
}

static const char *virtualization(const char *root)
{
	return cpu_flag(root, "vmx") ? "VT-x" : cpu_flag(root, "svm") ? "SVM" : NULL;
}

void probe_kvm_speed(const struct probe_context *c, struct probe_result *ret)
{
	const struct kvm_measure *m = c->kvm;
	const char *has = virtualization(c->root);

	switch (m->verdict) {
	case KVM_HARDWARE:
		probe_value(ret, PROBE_OK,
			    "at hardware speed: guest kernel code %.2f ns a turn, here %.2f ns; "
			    "one exit %.1f us",
			    m->guest_ns, m->host_ns, m->exit_ns / 1e3);
		return;
	case KVM_EMULATED:
		probe_value(ret, PROBE_MISSING,
			    "emulated: guest kernel code %.0f ns a turn, here "
			    "%.2f ns",
			    m->guest_ns, m->host_ns);
		probe_missing(ret, PROBE_MISSING,
			      "this KVM interprets guest kernel code %.0f times too slowly for "
			      "Linux guests",
			      m->guest_ns / m->host_ns);
		probe_fix(ret, "wisp lab up");
		return;
	case KVM_UNUSABLE:
		probe_missing(ret, PROBE_MISSING, "%s", m->reason);
		if (tree_access(c->root, "/dev/kvm", F_OK) &&
		    !tree_access(c->root, "/dev/kvm", R_OK | W_OK))
			probe_fix(ret, "sudo usermod -aG kvm $USER, then log in again");
		return;
	case KVM_NONE:
		probe_missing(ret, PROBE_MISSING, "%s",
			      has ? m->reason : "the CPU shows no VT-x or SVM");
		if (!has)
			probe_fix(ret, "enable VT-x or SVM in the firmware, or nested "
				       "virtualization in the hypervisor below");
		else
			probe_fix(ret, "modprobe %s", *has == 'V' ? "kvm-intel" : "kvm-amd");
		return;
	}
}

void probe_cpu_features(const struct probe_context *c, struct probe_result *ret)
{
	static const struct {
		const char *flag, *why;
	} wanted[] = {
		{"constant_tsc", "a steady clock in guests"},
		{"nonstop_tsc", "a steady clock in guests"},
	};
	const char *has = virtualization(c->root);
	unsigned cpus = tree_count(c->root, "/sys/devices/system/cpu/cpu[0-9]*");

	probe_value(ret, PROBE_OK, "%u CPUs, %s", cpus, has ? has : "no VT-x or SVM visible");
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
		if (!cpu_flag(c->root, wanted[i].flag)) {
			probe_missing(ret, PROBE_LESS, "no %s: %s", wanted[i].flag, wanted[i].why);
			return;
		}
}

uint64_t probe_available_memory(const char *root)
{
	CLEANUP_FREE char *path = io_format("%s/proc/meminfo", root);
	CLEANUP_FREE char *text = NULL;
	const char *line;

	if (!path || io_read_file(path, 1 << 20, &text, NULL) < 0)
		return 0;
	line = strstr(text, "MemAvailable:");
	return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) << 10 : 0;
}

void probe_memory(const struct probe_context *c, struct probe_result *ret)
{
	uint64_t bytes = probe_available_memory(c->root);
	char line[64] = "";

	probe_value(ret, PROBE_OK, "%.1f GiB available", (double)bytes / (1 << 30));
	tree_line(c->root, "/proc/sys/vm/overcommit_memory", line, sizeof(line));
	if (!strcmp(line, "2")) {
		probe_missing(ret, PROBE_LESS,
			      "overcommit is off: guest memory counts in full at start");
		probe_fix(ret, "sysctl vm.overcommit_memory=0");
	} else if (bytes < 2ull << 30) {
		probe_missing(ret, PROBE_LESS, "less than 2 GiB: enough for small guests only");
	}
}

void probe_huge_pages(const struct probe_context *c, struct probe_result *ret)
{
	uint64_t free_2m = tree_number(c->root, HUGE_2M "/free_hugepages");
	uint64_t free_1g = tree_number(c->root, HUGE_1G "/free_hugepages");

	probe_value(ret, free_2m || free_1g ? PROBE_OK : PROBE_LESS,
		    "%llu of %llu 2 MiB pages free, %llu of %llu 1 GiB pages free",
		    (unsigned long long)free_2m,
		    (unsigned long long)tree_number(c->root, HUGE_2M "/nr_hugepages"),
		    (unsigned long long)free_1g,
		    (unsigned long long)tree_number(c->root, HUGE_1G "/nr_hugepages"));
	if (!tree_access(c->root, HUGE_2M, F_OK) && !tree_access(c->root, HUGE_1G, F_OK))
		probe_missing(ret, PROBE_LESS, "the kernel has no hugetlbfs");
	else if (!free_2m && !free_1g)
		probe_missing(ret, PROBE_LESS, "no huge pages are reserved, or all are taken");
}

void probe_thp(const struct probe_context *c, struct probe_result *ret)
{
	char line[128] = "";
	char *open, *close = NULL;

	tree_line(c->root, "/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line));
	open = strchr(line, '['); /* "always [madvise] never": the chosen one */
	if (open)
		close = strchr(open, ']');
	if (!close) {
		probe_missing(ret, PROBE_LESS, "the kernel has none");
		return;
	}
	*close = 0;
	probe_value(ret, PROBE_OK, "%s", open + 1);
	if (!strcmp(open + 1, "never"))
		probe_missing(ret, PROBE_LESS, "guest memory gets none");
}

void probe_numa(const struct probe_context *c, struct probe_result *ret)
{
	unsigned nodes = tree_count(c->root, "/sys/devices/system/node/node[0-9]*");
	size_t used = 0;

	if (!nodes) {
		probe_missing(ret, PROBE_LESS, "the kernel shows no NUMA nodes");
		return;
	}
	probe_value(ret, PROBE_OK, "%u node%s", nodes, nodes > 1 ? "s" : "");
	for (unsigned i = 0; i < nodes; i++) {
		char path[64], cpus[64];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", i);
		used = strlen(ret->value);
		if (tree_line(c->root, path, cpus, sizeof(cpus)) && used + 40 < sizeof(ret->value))
			snprintf(ret->value + used, sizeof(ret->value) - used, "%s CPUs %.20s",
				 i ? ";" : ":", cpus);
	}
}

void probe_iommu(const struct probe_context *c, struct probe_result *ret)
{
	unsigned units = tree_count(c->root, "/sys/class/iommu/*");
	unsigned groups = tree_count(c->root, "/sys/kernel/iommu_groups/*");

	if (units && groups) {
		probe_value(ret, PROBE_OK, "%u unit%s, %u groups of devices", units,
			    units > 1 ? "s" : "", groups);
		return;
	}
	probe_missing(ret, PROBE_MISSING,
		      units ? "there is one, and no device is behind it" : "none is active");
}

static void add_name(const char *path, void *arg)
{
	struct probe_result *ret = arg;
	size_t used = strlen(ret->value);

	snprintf(ret->value + used, sizeof(ret->value) - used, "%s%s", used ? ", " : "",
		 strrchr(path, '/') + 1);
}

void probe_vfio(const struct probe_context *c, struct probe_result *ret)
{
	tree_each(c->root, "/sys/bus/pci/drivers/vfio-pci/????:*", add_name, ret);
	if (ret->value[0])
		return;
	if (!tree_access(c->root, "/dev/vfio/vfio", F_OK)) {
		probe_missing(ret, PROBE_MISSING, "/dev/vfio/vfio does not exist");
		return;
	}
	probe_value(ret, PROBE_LESS, "ready");
	probe_missing(ret, PROBE_LESS, "no device is bound to vfio-pci");
	probe_fix(ret, "echo vfio-pci > /sys/bus/pci/devices/ADDRESS/driver_override; echo ADDRESS "
		       "> /sys/bus/pci/drivers_probe");
}

struct functions {
	const char *root;
	unsigned devices;
	uint64_t total, enabled;
};

static void add_functions(const char *path, void *arg)
{
	struct functions *f = arg;
	char other[PATH_MAX];

	f->devices++;
	f->total += tree_number(f->root, path);
	snprintf(other, sizeof(other), "%.*s/sriov_numvfs", (int)(strrchr(path, '/') - path), path);
	f->enabled += tree_number(f->root, other);
}

void probe_virtual_functions(const struct probe_context *c, struct probe_result *ret)
{
	struct functions f = {.root = c->root};

	tree_each(c->root, "/sys/bus/pci/devices/*/sriov_totalvfs", add_functions, &f);
	if (!f.devices) {
		probe_missing(ret, PROBE_MISSING, "no PCI device offers virtual functions");
		return;
	}
	probe_value(ret, f.enabled ? PROBE_OK : PROBE_LESS, "%u device%s, %llu of %llu enabled",
		    f.devices, f.devices > 1 ? "s" : "", (unsigned long long)f.enabled,
		    (unsigned long long)f.total);
	if (!f.enabled)
		probe_missing(ret, PROBE_LESS, "none is enabled");
}

void probe_infiniband(const struct probe_context *c, struct probe_result *ret)
{
	tree_each(c->root, "/sys/class/infiniband/*", add_name, ret);
	if (!ret->value[0]) {
		probe_missing(ret, PROBE_MISSING, "no RDMA device");
	} else if (!tree_count(c->root, "/dev/infiniband/uverbs*")) {
		probe_missing(ret, PROBE_LESS,
			      "programs cannot reach it: no /dev/infiniband/uverbs*");
		probe_fix(ret, "modprobe ib_uverbs");
	}
}
