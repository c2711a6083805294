/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of what the kernel's interfaces and the machine's services allow us. */

#include "doctor/probes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lib/tree.h"
#include "lib/cleanup.h"
#include "lib/io.h"

/* A device file we need to read and write. */
static void device(const struct probe_context *c, const char *path, struct probe_result *ret)
{
	if (tree_access(c->root, path, R_OK | W_OK))
		probe_value(ret, PROBE_OK, "%s", path);
	else if (!tree_access(c->root, path, F_OK))
		probe_missing(ret, PROBE_MISSING, "%s does not exist", path);
	else {
		probe_missing(ret, PROBE_MISSING, "you may not open %s", path);
		probe_fix(ret, "chmod 666 %s, or a udev rule that does", path);
	}
}

void probe_tun(const struct probe_context *c, struct probe_result *ret)
{
	device(c, "/dev/net/tun", ret);
}

void probe_vhost_net(const struct probe_context *c, struct probe_result *ret)
{
	device(c, "/dev/vhost-net", ret);
}

void probe_vhost_vsock(const struct probe_context *c, struct probe_result *ret)
{
	device(c, "/dev/vhost-vsock", ret);
}

/* In a child, for there is no way back out of a namespace. */
void probe_user_namespaces(const struct probe_context *c, struct probe_result *ret)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID) < 0 ? errno : 0);
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		probe_missing(ret, PROBE_MISSING, "cannot try: %s", strerror(errno));
		return;
	}
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		probe_value(ret, PROBE_OK, "allowed, with a network and a PID namespace inside");
	else
		probe_missing(ret, PROBE_MISSING, "refused: %s", strerror(WEXITSTATUS(status)));
	if (ret->state == PROBE_MISSING &&
	    tree_number(c->root, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"))
		probe_fix(ret, "sysctl kernel.apparmor_restrict_unprivileged_userns=0");
}

void probe_cgroup2(const struct probe_context *c, struct probe_result *ret)
{
	char controllers[160];

	if (tree_line(c->root, "/sys/fs/cgroup/cgroup.controllers", controllers,
		      sizeof(controllers)))
		probe_value(ret, PROBE_OK, "%s", *controllers ? controllers : "no controllers");
	else if (tree_access(c->root, "/sys/fs/cgroup/unified/cgroup.controllers", F_OK))
		probe_missing(ret, PROBE_MISSING, "hybrid set-up: version 1 has the controllers");
	else
		probe_missing(ret, PROBE_MISSING, "not mounted on /sys/fs/cgroup");
}

void probe_io_uring(const struct probe_context *c, struct probe_result *ret)
{
	struct io_uring_params params = {0};
	CLEANUP_CLOSE int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (fd >= 0)
		probe_value(ret, PROBE_OK, "yes (features 0x%x)", params.features);
	else if (errno == EPERM)
		probe_missing(ret, PROBE_MISSING, "switched off by kernel.io_uring_disabled");
	else
		probe_missing(ret, PROBE_MISSING, "%s", strerror(errno));
}

/*
 * Guest memory is touched by KVM in the kernel, so the full kind is needed, and for checkpoints
 * write protection of shared memory.
 */
void probe_userfaultfd(const struct probe_context *c, struct probe_result *ret)
{
	CLEANUP_CLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API};

	if (fd < 0) {
		probe_missing(ret, PROBE_MISSING,
			      errno == EPERM ? "only root may: vm.unprivileged_userfaultfd is 0"
					     : "%s",
			      strerror(errno));
		if (errno == EPERM)
			probe_fix(ret, "sysctl vm.unprivileged_userfaultfd=1");
		return;
	}
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		probe_missing(ret, PROBE_MISSING, "UFFDIO_API: %s", strerror(errno));
		return;
	}
	probe_value(ret, PROBE_OK, "missing pages%s%s",
		    api.features & UFFD_FEATURE_MINOR_SHMEM ? ", minor faults" : "",
		    api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM ? ", write protection" : "");
	if (!(api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		probe_missing(ret, PROBE_LESS, "no write protection of shared memory (Linux 5.19)");
}

void probe_lab_programs(const struct probe_context *c, struct probe_result *ret)
{
	bool qemu = tree_program(c->root, "qemu-system-x86_64");
	bool fs = tree_access(c->root, "/usr/lib/qemu/virtiofsd", X_OK) ||
		  tree_access(c->root, "/usr/libexec/virtiofsd", X_OK);

	if (qemu && fs)
		probe_value(ret, PROBE_OK, "QEMU and virtiofsd");
	else
		probe_missing(ret, PROBE_MISSING, "%s not installed",
			      qemu ? "virtiofsd is"
			      : fs ? "QEMU is"
				   : "QEMU and virtiofsd are");
}

void probe_slurm(const struct probe_context *c, struct probe_result *ret)
{
	const char *job = getenv("SLURM_JOB_ID");

	if (!tree_program(c->root, "srun")) {
		probe_missing(ret, PROBE_MISSING, "srun is not installed");
	} else if (!tree_access(c->root, "/etc/slurm/slurm.conf", R_OK) && !getenv("SLURM_CONF")) {
		probe_missing(ret, PROBE_LESS, "no /etc/slurm/slurm.conf: not part of a cluster");
		probe_value(ret, PROBE_LESS, "the programs are installed");
	} else {
		probe_value(ret, PROBE_OK, "%s%s", job ? "in job " : "configured", job ? job : "");
	}
}

void probe_munge(const struct probe_context *c, struct probe_result *ret)
{
	static const char *const sockets[] = {"/run/munge/munge.socket.2",
					      "/var/run/munge/munge.socket.2"};

	for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++) {
		CLEANUP_FREE char *path = io_format("%s%s", c->root, sockets[i]);
		CLEANUP_CLOSE int fd = path ? io_unix_connect(path, NULL) : -1;

		if (fd >= 0) {
			probe_value(ret, PROBE_OK, "munged answers");
			return;
		}
	}
	probe_missing(ret, PROBE_MISSING, "%s",
		      tree_program(c->root, "munge") ||
				      tree_access(c->root, "/usr/sbin/munged", X_OK)
			      ? "munged does not run"
			      : "not installed");
	if (strcmp(ret->missing, "not installed"))
		probe_fix(ret, "systemctl start munge");
}

/* Rules for who sends into a cluster's network, and for its way out. */
void probe_nftables(const struct probe_context *c, struct probe_result *ret)
{
	CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

	if (fd < 0) {
		probe_missing(ret, PROBE_MISSING, "the kernel: %s", strerror(errno));
		probe_fix(ret, "a kernel with nf_tables, or modprobe nf_tables");
	} else if (!tree_program(c->root, "nft") && !tree_access(c->root, "/usr/sbin/nft", X_OK)) {
		probe_missing(ret, PROBE_MISSING, "nft is not installed");
	} else {
		probe_value(ret, PROBE_OK, "nft, and the kernel takes rules");
	}
}
