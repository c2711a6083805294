/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails, for programs under LD_PRELOAD: of the calls that BROKEN_CALL names (read,
 * write or sync) on files with BROKEN_PATH in their path, number BROKEN_FROM and all later ones
 * fail with EIO, or with BROKEN_DELAY take so many milliseconds. Counted from 1, by all threads
 * together. Built for 64-bit offsets, as what it is
 * loaded into.
 */

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static bool broken(const char *call, int fd)
{
	static _Atomic unsigned long calls;
	const char *which = getenv("BROKEN_CALL"), *path = getenv("BROKEN_PATH");
	const char *from = getenv("BROKEN_FROM"), *delay = getenv("BROKEN_DELAY");
	char link[64], target[4096];
	ssize_t n;

	if (!which || !path || !from || strcmp(which, call))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	if (!strstr(target, path) || ++calls < strtoul(from, NULL, 10))
		return false;
	if (delay) {
		usleep((useconds_t)strtoul(delay, NULL, 10) * 1000);
		return false;
	}
	errno = EIO;
	return true;
}

#define WRAP(call, type, name, parameters, arguments)                \
	type name parameters                                         \
	{                                                            \
		type(*next) parameters = dlsym(RTLD_NEXT, #name);    \
                                                                     \
		return broken(call, fd) ? (type)-1 : next arguments; \
	}

WRAP("read", ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))
WRAP("read", ssize_t, pread, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
WRAP("read", ssize_t, preadv, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
WRAP("write", ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))
WRAP("write", ssize_t, pwrite, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
WRAP("sync", int, fsync, (int fd), (fd))
WRAP("sync", int, fdatasync, (int fd), (fd))
