/* SPDX-License-Identifier: Apache-2.0 */
/* Probes on made-up /sys, /proc and /dev trees. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "doctor/probe.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/process.h"

static int set_up(void **state)
{
	char *root = strdup("/tmp/wisp-doctor-XXXXXX");

	*state = mkdtemp(root);
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	char *root = *state;
	const char *const argv[] = {"rm", "-r", root, NULL};
	int r = process_run(&(struct process){.argv = argv}, NULL, NULL, NULL);

	free(root);
	return r;
}

/* Makes a file with its folders; an executable one, which suits all. */
static void put(const char *root, const char *path, const char *text)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	char *slash = strrchr(full, '/');

	*slash = 0;
	assert_int_equal(io_make_dirs(full, 0755, NULL), 0);
	*slash = '/';
	assert_int_equal(io_write_file(full, text, strlen(text), NULL), 0);
	assert_int_equal(chmod(full, 0755), 0);
}

static struct probe_result ask(const char *root, const char *name)
{
	const struct kvm_measure none = {.verdict = KVM_NONE, .reason = "/dev/kvm: nothing"};
	const struct probe_context context = {.root = root, .kvm = &none};
	struct probe_result result;

	assert_non_null(probe_find(name));
	probe_run(probe_find(name), &context, &result);
	/* What is not there is explained. */
	assert_true(result.state == PROBE_OK || result.missing[0]);
	return result;
}

/* On an empty machine every probe says so, and none fails. */
static void test_nothing(void **state)
{
	for (const struct probe *p = probes; p->name; p++) {
		assert_true(p->title[0] && p->fallback[0]);
		ask(*state, p->name);
	}
	assert_null(probe_find("nonsense"));
}

static void test_kvm(void **state)
{
	struct kvm_measure m = {.verdict = KVM_HARDWARE, .host_ns = 0.3, .guest_ns = 0.31};
	struct probe_context context = {.root = *state, .kvm = &m};
	struct probe_result r = ask(*state, "kvm");

	assert_non_null(strstr(r.fix, "firmware"));
	put(*state, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vmx_not\n");
	assert_non_null(strstr(ask(*state, "kvm").fix, "firmware"));
	put(*state, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vmx sse\n");
	assert_string_equal(ask(*state, "kvm").fix, "modprobe kvm-intel");
	put(*state, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu svm\n");
	assert_string_equal(ask(*state, "kvm").fix, "modprobe kvm-amd");

	probe_run(probe_find("kvm"), &context, &r);
	assert_int_equal(r.state, PROBE_OK);
	m = (struct kvm_measure){.verdict = KVM_EMULATED, .host_ns = 0.3, .guest_ns = 570};
	probe_run(probe_find("kvm"), &context, &r);
	assert_int_equal(r.state, PROBE_MISSING);
	assert_non_null(strstr(r.missing, "1900 times"));
	assert_string_equal(r.fix, "wisp lab up");
}

/* The measurement itself: whatever this machine is, the numbers and the verdict agree. */
static void test_kvm_measure(void **state)
{
	struct kvm_measure m;
	char reason[512];

	kvm_measure(&m);
	if (m.verdict == KVM_NONE || m.verdict == KVM_UNUSABLE)
		assert_true(m.reason[0]);
	else
		assert_true(m.host_ns > 0 && m.guest_ns > 0 && m.exit_ns > 0);
	assert_int_equal(probe_kvm(reason, sizeof(reason)), m.verdict);
	assert_int_equal(reason[0] == 0, m.verdict == KVM_HARDWARE);
}

static void test_memory(void **state)
{
	put(*state, "/proc/meminfo", "MemTotal: 9999999 kB\nMemAvailable:   4194304 kB\n");
	assert_int_equal(probe_available_memory(*state), 4ull << 30);
	assert_string_equal(ask(*state, "memory").value, "4.0 GiB available");
	put(*state, "/proc/sys/vm/overcommit_memory", "2\n");
	assert_int_equal(ask(*state, "memory").state, PROBE_LESS);
}

#define HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define THP "/sys/kernel/mm/transparent_hugepage/enabled"

static void test_pages(void **state)
{
	put(*state, HUGE "nr_hugepages", "8\n");
	put(*state, HUGE "free_hugepages", "0\n");
	assert_int_equal(ask(*state, "hugepages").state, PROBE_LESS);
	put(*state, HUGE "free_hugepages", "3\n");
	assert_int_equal(ask(*state, "hugepages").state, PROBE_OK);
	assert_non_null(strstr(ask(*state, "hugepages").value, "3 of 8 2 MiB"));

	put(*state, THP, "always madvise [never]\n");
	assert_int_equal(ask(*state, "thp").state, PROBE_LESS);
	put(*state, THP, "always [madvise] never\n");
	assert_string_equal(ask(*state, "thp").value, "madvise");
	put(*state, THP, "[broken\n");
	ask(*state, "thp");
}

static void test_numa(void **state)
{
	put(*state, "/sys/devices/system/node/node0/cpulist", "0-3\n");
	put(*state, "/sys/devices/system/node/node1/cpulist", "4-7\n");
	assert_string_equal(ask(*state, "numa").value, "2 nodes: CPUs 0-3; CPUs 4-7");
}

static void test_devices(void **state)
{
	assert_int_equal(ask(*state, "vhost-net").state, PROBE_MISSING);
	assert_string_equal(ask(*state, "vhost-net").fix, "modprobe vhost_net");
	put(*state, "/dev/vhost-net", "");
	assert_int_equal(ask(*state, "vhost-net").state, PROBE_OK);

	assert_int_equal(ask(*state, "iommu").state, PROBE_MISSING);
	put(*state, "/sys/class/iommu/dmar0", "");
	assert_int_equal(ask(*state, "iommu").state, PROBE_MISSING);
	put(*state, "/sys/kernel/iommu_groups/0", "");
	put(*state, "/sys/kernel/iommu_groups/1", "");
	assert_string_equal(ask(*state, "iommu").value, "1 unit, 2 groups of devices");
}

static void test_functions(void **state)
{
	put(*state, "/dev/vfio/vfio", "");
	assert_int_equal(ask(*state, "vfio").state, PROBE_LESS);
	put(*state, "/sys/bus/pci/drivers/vfio-pci/0000:3b:00.1", "");
	put(*state, "/sys/bus/pci/drivers/vfio-pci/bind", "");
	assert_string_equal(ask(*state, "vfio").value, "0000:3b:00.1");

	put(*state, "/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs", "8\n");
	put(*state, "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", "0\n");
	assert_int_equal(ask(*state, "sriov").state, PROBE_LESS);
	put(*state, "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", "2\n");
	assert_string_equal(ask(*state, "sriov").value, "1 device, 2 of 8 enabled");

	put(*state, "/sys/class/infiniband/mlx5_0", "");
	assert_int_equal(ask(*state, "infiniband").state, PROBE_LESS);
	put(*state, "/dev/infiniband/uverbs0", "");
	assert_string_equal(ask(*state, "infiniband").value, "mlx5_0");
	assert_int_equal(ask(*state, "infiniband").state, PROBE_OK);
}

static void test_services(void **state)
{
	assert_string_equal(ask(*state, "cgroup2").missing, "not mounted on /sys/fs/cgroup");
	put(*state, "/sys/fs/cgroup/unified/cgroup.controllers", "");
	assert_non_null(strstr(ask(*state, "cgroup2").missing, "hybrid"));
	put(*state, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
	assert_string_equal(ask(*state, "cgroup2").value, "cpuset cpu io memory");

	assert_int_equal(ask(*state, "lab").state, PROBE_MISSING);
	put(*state, "/usr/bin/qemu-system-x86_64", "");
	assert_string_equal(ask(*state, "lab").missing, "virtiofsd is not installed");
	put(*state, "/usr/libexec/virtiofsd", "");
	assert_int_equal(ask(*state, "lab").state, PROBE_OK);

	assert_int_equal(ask(*state, "slurm").state, PROBE_MISSING);
	put(*state, "/usr/bin/srun", "");
	unsetenv("SLURM_CONF");
	assert_int_equal(ask(*state, "slurm").state, PROBE_LESS);
	put(*state, "/etc/slurm/slurm.conf", "");
	unsetenv("SLURM_JOB_ID");
	assert_string_equal(ask(*state, "slurm").value, "configured");
}

static void test_munge(void **state)
{
	CLEANUP_FREE char *folder = io_format("%s/run/munge", (char *)*state);
	CLEANUP_FREE char *path = io_format("%s/munge.socket.2", folder);
	int fd;

	put(*state, "/usr/sbin/munged", "");
	assert_string_equal(ask(*state, "munge").missing, "munged does not run");
	assert_int_equal(io_make_dirs(folder, 0755, NULL), 0);
	fd = io_unix_listen(path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(ask(*state, "munge").state, PROBE_OK);
	close(fd);
}

static void test_nftables(void **state)
{
	struct probe_result said = ask(*state, "nftables");

	assert_int_equal(said.state, PROBE_MISSING);
	if (strcmp(said.missing, "nft is not installed"))
		skip(); /* this kernel takes no rules, as it said */
	put(*state, "/usr/sbin/nft", "");
	assert_int_equal(ask(*state, "nftables").state, PROBE_OK);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_nothing),  CASE(test_kvm),   CASE(test_kvm_measure), CASE(test_memory),
		CASE(test_pages),    CASE(test_numa),  CASE(test_devices),     CASE(test_functions),
		CASE(test_services), CASE(test_munge), CASE(test_nftables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
