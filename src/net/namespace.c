/* SPDX-License-Identifier: Apache-2.0 */
/* Private user, network, PID and mount namespaces (namespaces(7)). */

#include "net/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
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

/* Makes the user root of a new user namespace (user_namespaces(7), "Defining mappings"). */
static int become_root(struct error *err)
{
	CLEANUP_FREE char *uids = io_format("0 %u 1", (unsigned)geteuid());
	CLEANUP_FREE char *gids = io_format("0 %u 1", (unsigned)getegid());
	int r;

	if (!uids || !gids)
		return -ENOMEM;
	if (unshare(CLONE_NEWUSER) < 0)
		return error_errno(err, -errno,
				   "cannot make a user namespace (be root, or allow them: sysctl "
				   "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
				   "kernel.apparmor_restrict_unprivileged_userns)");
	r = write_proc("/proc/self/setgroups", "deny");
	if (!r)
		r = write_proc("/proc/self/uid_map", uids);
	if (!r)
		r = write_proc("/proc/self/gid_map", gids);
	return r ? error_errno(err, r, "cannot become root of a user namespace") : 0;
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

int namespace_ignore_setgroups(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setgroups, 0, 1),
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
