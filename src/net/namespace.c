/* SPDX-License-Identifier: Apache-2.0 */
/* Private user, network, PID and mount namespaces (namespaces(7)). */

#include "net/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static int write_proc(const char *path, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : io_write_full(fd, text, strlen(text));
}

/* One user and one group, who are ours outside (user_namespaces(7), "Defining mappings"). */
static int map_user(uid_t outside, gid_t group_outside, uid_t inside, gid_t group_inside)
{
	char uids[40], gids[40];
	int r = write_proc("/proc/self/setgroups", "deny");

	snprintf(uids, sizeof(uids), "%u %u 1", inside, outside);
	snprintf(gids, sizeof(gids), "%u %u 1", group_inside, group_outside);
	if (!r)
		r = write_proc("/proc/self/uid_map", uids);
	return r ? r : write_proc("/proc/self/gid_map", gids);
}

/* Makes the user root of a new user namespace. */
static int become_root(struct error *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r;

	if (unshare(CLONE_NEWUSER) < 0)
		return error_errno(err, -errno,
				   "cannot make a user namespace (be root, or allow them: sysctl "
				   "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
				   "kernel.apparmor_restrict_unprivileged_userns)");
	r = map_user(uid, gid, 0, 0);
	return r ? error_errno(err, r, "cannot become root of a user namespace") : 0;
}

/* Others than root lose their capabilities with the next program, but for ambient ones. */
static int keep_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data))
		return -errno;
	for (unsigned i = 0; i < 32 * ARRAY_SIZE(data); i++)
		if ((data[i / 32].permitted & 1u << i % 32) &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return -errno;
	return 0;
}

int namespace_own_user(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r = unshare(CLONE_NEWUSER) < 0 ? -errno : map_user(uid, gid, uid, gid);

	return r ? r : keep_capabilities();
}

int namespace_enter_private(struct error *err)
{
	int r = geteuid() ? become_root(err) : 0;

	if (!r && unshare(CLONE_NEWNET | CLONE_NEWPID) < 0)
		r = error_errno(err, -errno, "cannot make a network and a PID namespace");
	return r;
}

int namespace_make_read_only(void)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};

	if (unshare(CLONE_NEWNS) < 0 ||
	    mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return -errno;
	return 0;
}

int namespace_stay_user(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setgroups, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setresuid, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setresgid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO), /* errno 0: success */
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {.len = ARRAY_SIZE(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
		return -errno;
	return 0;
}

int namespace_join(int pidfd, struct error *err)
{
	/* Joining one's own user namespace is refused: root has no other. */
	int flags = CLONE_NEWNET | CLONE_NEWPID | (geteuid() ? CLONE_NEWUSER : 0);

	if (setns(pidfd, flags) < 0)
		return error_errno(err, -errno, "cannot enter the private network");
	return 0;
}
