/* SPDX-License-Identifier: Apache-2.0 */
/* File and socket helpers: whole reads and writes, atomic replacement, UNIX sockets. */

#include "lib/io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

int io_read_full(int fd, void *buf, size_t n)
{
	for (char *p = buf; n;) {
		ssize_t r = read(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -EPIPE;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

int io_pread_full(int fd, void *buf, size_t n, off_t offset)
{
	for (char *p = buf; n;) {
		ssize_t r = pread(fd, p, n, offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -EPIPE;
		p += r;
		n -= (size_t)r;
		offset += r;
	}
	return 0;
}

int io_write_full(int fd, const void *buf, size_t n)
{
	for (const char *p = buf; n;) {
		/* MSG_NOSIGNAL exists for sockets alone: try those first. */
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r < 0 && errno == ENOTSOCK)
			r = write(fd, p, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

ssize_t io_read_file(const char *path, size_t max, char **ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *buf = NULL;
	size_t used = 0, room = 0;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	for (;;) {
		ssize_t n;

		if (used == room) {
			/* One byte more than max tells a file that is too large. */
			size_t more = room ? room * 2 : 4096;
			char *bigger = realloc(buf, (more > max ? max + 1 : more) + 1);

			if (!bigger)
				return error_errno(err, -ENOMEM, "cannot read %s", path);
			buf = bigger;
			room = more > max ? max + 1 : more;
		}
		n = read(fd, buf + used, room - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read %s", path);
		if (!n)
			break;
		used += (size_t)n;
		if (used > max)
			return error_set(err, -EFBIG, "%s is larger than %zu bytes", path, max);
	}
	buf[used] = 0;
	*ret = take_ptr(buf);
	return (ssize_t)used;
}

int io_write_file(const char *path, const void *data, size_t n, struct error *err)
{
	CLEANUP_FREE char *temp = io_format("%s.%d.tmp", path, getpid());
	CLEANUP_CLOSE int fd = -1;
	int r = 0;

	if (!temp)
		return error_errno(err, -ENOMEM, "cannot write %s", path);
	/* In a folder of somebody else's it might lead elsewhere. */
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno(err, -errno, "cannot create %s", temp);
	r = io_write_full(fd, data, n);
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (!r && rename(temp, path) < 0)
		r = -errno;
	if (r) {
		unlink(temp);
		return error_errno(err, r, "cannot write %s", path);
	}
	return 0;
}

/*
 * Fills the address; a path that does not fit is reached through /proc/self/fd of its
 * directory, which *dir_fd keeps open until the socket call is made.
 */
static int unix_address(const char *path, struct sockaddr_un *addr, int *dir_fd)
{
	char dir[PATH_MAX], base[PATH_MAX];

	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path) /* would be an address without a file, and so without its permissions */
		return -ENOENT;
	if (strlen(path) < sizeof(addr->sun_path)) {
		strcpy(addr->sun_path, path);
		return 0;
	}
	if (strlen(path) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(dir, path);
	strcpy(base, path);
	*dir_fd = open(dirname(dir), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir_fd < 0)
		return -errno;
	if (snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/%s", *dir_fd,
		     basename(base)) >= (int)sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

static int unix_connect(const char *path, int flags, struct error *err)
{
	CLEANUP_CLOSE int dir = -1;
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_un addr;
	int r = unix_address(path, &addr, &dir);

	if (!r) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
			r = -errno;
	}
	if (r)
		return error_errno(err, r, "cannot connect to %s", path);
	return take_fd(&fd);
}

int io_unix_connect(const char *path, struct error *err)
{
	return unix_connect(path, 0, err);
}

int io_unix_connect_nonblock(const char *path, struct error *err)
{
	return unix_connect(path, SOCK_NONBLOCK, err);
}

/* Unlinks the socket of a server that is gone; -EADDRINUSE when one answers. */
static int remove_stale_socket(const char *path)
{
	CLEANUP_CLOSE int fd = io_unix_connect_nonblock(path, NULL);
	struct stat st;

	if (fd >= 0 || fd == -EAGAIN)
		return -EADDRINUSE;
	if (fd == -ECONNREFUSED && !lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
	return 0;
}

int io_lock(int fd, const char *path, struct error *err)
{
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return -EBUSY;
	if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK)
		return error_set(err, -errno,
				 "cannot lock %s: its file system has no locks here: mount it with "
				 "them (Lustre: -o flock), or use another folder",
				 path);
	return error_errno(err, -errno, "cannot lock %s", path);
}

/*
 * Of two servers that start at once, one must not take the other's new socket for a stale one: the
 * directory is locked until the fd is closed. A directory that cannot be read is not locked.
 */
static int lock_directory_of(const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

int io_unix_listen(const char *path, struct error *err)
{
	__attribute__((unused)) CLEANUP_CLOSE int lock = lock_directory_of(path);
	CLEANUP_CLOSE int dir = -1;
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_un addr;
	int r = remove_stale_socket(path);

	if (!r)
		r = unix_address(path, &addr, &dir);
	if (!r) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		/* fchmod before bind sets the mode the socket file is made with. */
		if (fd < 0 || fchmod(fd, 0600) < 0 ||
		    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		    listen(fd, SOMAXCONN) < 0)
			r = -errno;
	}
	if (r)
		return error_errno(err, r, "cannot listen on %s", path);
	return take_fd(&fd);
}

int io_peer_uid(int fd, uid_t *uid, pid_t *pid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*uid = cred.uid;
	if (pid)
		*pid = cred.pid;
	return 0;
}

void io_open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

int io_make_dirs(const char *path, mode_t mode, struct error *err)
{
	char part[PATH_MAX];
	struct stat st;

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return error_errno(err, -ENAMETOOLONG, "cannot create directory %s", path);
	for (char *p = part + (*part == '/');; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return error_errno(err, -errno, "cannot create directory %s", part);
		*p = c;
		if (!c)
			break;
	}
	if (stat(path, &st) < 0)
		return error_errno(err, -errno, "cannot create directory %s", path);
	if (!S_ISDIR(st.st_mode))
		return error_errno(err, -ENOTDIR, "cannot create directory %s", path);
	return 0;
}

char *io_format(const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

uint64_t io_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
