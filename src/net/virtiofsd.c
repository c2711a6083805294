/* SPDX-License-Identifier: Apache-2.0 */
/* Finds and starts virtiofsd. */

#include "net/virtiofsd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/process.h"
#include "net/namespace.h"

int virtiofsd_find(char **ret, struct error *err)
{
	static const char *const places[] = {"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd",
					     "/usr/lib/virtiofsd"};

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		if (access(places[i], X_OK) < 0)
			continue;
		*ret = strdup(places[i]);
		return *ret ? 0 : error_errno(err, -ENOMEM, "virtiofsd");
	}
	return error_set(err, -ENOENT,
			 "virtiofsd is not installed: apt-get install qemu-system-common, or "
			 "virtiofsd where that is a package");
}

/*
 * "-o source=/" does not work with the default sandbox (pivot_root of / into itself fails); chroot
 * does, also as root of a user namespace.
 */
void virtiofsd_args(const struct virtiofsd *fs, struct args *ret)
{
	args_add(ret, "%s", fs->program);
	args_add(ret, "--fd=3");
	args_add(ret, "--thread-pool-size=2");
	args_add(ret, "--rlimit-nofile=0"); /* what the keeper set */
	args_add(ret, "-o");
	args_add(ret, "source=");
	for (const char *c = fs->source; *c; c++) /* libfuse's: a backslash protects a comma */
		args_extend(ret, *c == ',' || *c == '\\' ? "\\%c" : "%c", *c);
	args_add(ret, "-o");
	args_add(ret, "sandbox=chroot");
	args_add(ret, "-o");
	args_add(ret, "cache=%s", fs->cached ? "always" : "auto");
	args_add(ret, "-o");
	args_add(ret, "xattr");
}

/*
 * Two ends of a connection: one that listens, for virtiofsd, and one already connected to it. The
 * name is an abstract one that the kernel picks, in our network namespace: no file, and nobody has
 * to wait for anybody.
 */
static int connection_pair(int *listener, int *connected)
{
	CLEANUP_CLOSE int a = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CLEANUP_CLOSE int b = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(addr);

	if (a < 0 || b < 0 || bind(a, (struct sockaddr *)&addr, sizeof(sa_family_t)) < 0 ||
	    listen(a, 1) < 0 || getsockname(a, (struct sockaddr *)&addr, &len) < 0 ||
	    connect(b, (struct sockaddr *)&addr, len) < 0)
		return -errno;
	*listener = take_fd(&a);
	*connected = take_fd(&b);
	return 0;
}

/*
 * In the child that becomes virtiofsd, which is single-threaded: setenv() is fine. Who is not root,
 * not even of a user namespace, needs one to leave the rest of the file tree behind.
 */
static int enter_sandbox(void *arg)
{
	const struct virtiofsd *fs = arg;
	int r = geteuid() ? namespace_own_user() : 0;

	if (!r && fs->read_only)
		r = namespace_make_read_only();
	if (!r && fs->preload && setenv("LD_PRELOAD", fs->preload, 1) < 0)
		r = -errno;
	return r || !fs->preload ? r : namespace_stay_user();
}

int virtiofsd_start(const struct virtiofsd *fs, pid_t *pid, int *connected, struct error *err)
{
	CLEANUP_CLOSE int listener = -1;
	CLEANUP_CLOSE int client = -1;
	__attribute__((cleanup(args_done))) struct args args = {0};
	int r = connection_pair(&listener, &client);
	int fds[] = {-1, STDOUT_FILENO, STDERR_FILENO, listener};
	struct process process = {.fds = fds,
				  .nfds = ARRAY_SIZE(fds),
				  .in_child = enter_sandbox,
				  .in_child_arg = (void *)fs};

	if (r < 0)
		return error_errno(err, r, "cannot make a socket for virtiofsd");
	virtiofsd_args(fs, &args);
	if (args.failed)
		return error_errno(err, -ENOMEM, "cannot start virtiofsd");
	process.argv = (const char *const *)args.v;
	r = process_start(&process, pid, err);
	if (!r)
		*connected = take_fd(&client);
	else if (geteuid() && (r == -EPERM || r == -EACCES || r == -ENOSPC))
		error_prefix(err, r,
			     "a share needs a user namespace (are they allowed? sysctl "
			     "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
			     "kernel.apparmor_restrict_unprivileged_userns)");
	return r;
}
