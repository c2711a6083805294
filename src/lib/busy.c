/* SPDX-License-Identifier: Apache-2.0 */
/* Who works on a VM. */

#include "lib/busy.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define TEXT_MAX 512
#define LOOK_MS 20
#define TRIES 100 /* others that end at the very moment */

static char *path_of(const char *control)
{
	return io_format("%s.busy", control);
}

/* 0 when it is ours now; -EAGAIN when another has it. */
static int lock(int fd)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_SETLK, &whole) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

/* Who has the lock; 0: nobody. */
static pid_t holder(int fd)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_GETLK, &whole) || whole.l_type == F_UNLCK ? 0 : whole.l_pid;
}

static void copy(char to[BUSY_WHAT], const json_t *root, const char *name)
{
	const char *text = json_string_value(json_object_get(root, name));

	snprintf(to, BUSY_WHAT, "%s", text ? text : "");
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

static void read_file(int fd, struct busy_now *ret)
{
	char text[TEXT_MAX];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	json_t *root = n > 0 ? json_loadb(text, (size_t)n, JSON_DISABLE_EOF_CHECK, NULL) : NULL;

	*ret = (struct busy_now){.pid = holder(fd)};
	copy(ret->what, root, "what");
	copy(ret->outcome, root, "outcome");
	ret->decided = json_is_true(json_object_get(root, "decided"));
	json_decref(root);
}

/* Of one size, so that a new text has no rest of the old behind it. */
static int write_file(const struct busy *b, bool decided, const char *outcome)
{
	char text[TEXT_MAX];
	int n = snprintf(text, sizeof(text),
			 "{\"what\": \"%s\", \"decided\": %s, \"outcome\": \"%s\"}", b->what,
			 decided ? "true" : "false", outcome);

	memset(text + n, ' ', sizeof(text) - (size_t)n);
	text[sizeof(text) - 1] = '\n';
	return pwrite(b->fd, text, sizeof(text), 0) == sizeof(text) ? 0 : -errno;
}

/* Opens the file that has the name when it is locked: who ended took his away. */
static int open_locked(const char *path)
{
	for (unsigned i = 0; i < TRIES; i++) {
		CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat ours, named;
		int rc = fd < 0 ? -errno : lock(fd);

		if (rc < 0)
			return rc;
		if (fstat(fd, &ours) == 0 && stat(path, &named) == 0 &&
		    ours.st_ino == named.st_ino && ours.st_dev == named.st_dev)
			return take_fd(&fd);
	}
	return -EAGAIN;
}

static int refuse(const char *control, struct error *err)
{
	struct busy_now now = {0};

	if (busy_look(control, &now, NULL) < 0 || !now.pid)
		return error_set(err, -EBUSY, "another operation on this VM ends just now");
	return error_set(err, -EBUSY,
			 "another operation on this VM runs: %s, process %d (cancel it, or wait "
			 "for its end)",
			 now.what, (int)now.pid);
}

int busy_begin(struct busy *b, const char *control, const char *what, struct error *err)
{
	CLEANUP_FREE char *path = path_of(control);
	struct busy new = {.fd = -1};
	int rc;

	if (!path)
		return error_errno(err, -ENOMEM, "cannot begin");
	rc = new.fd = open_locked(path);
	if (rc == -EAGAIN)
		return refuse(control, err);
	snprintf(new.what, sizeof(new.what), "%s", what);
	if (rc >= 0)
		rc = write_file(&new, false, "");
	if (rc < 0) {
		cleanup_close_fd(&new.fd);
		return error_errno(err, rc, "cannot write %s", path);
	}
	new.path = take_ptr(path);
	*b = new;
	return 0;
}

void busy_decided(struct busy *b)
{
	if (b->path)
		write_file(b, true, "");
}

void busy_end(struct busy *b, const char *outcome)
{
	if (!b->path)
		return;
	write_file(b, true, outcome);
	unlink(b->path);
	free(b->path);
	close(b->fd);
	*b = (struct busy){.fd = -1};
}

/* The file of who is busy, or -ENOENT. */
static int open_file(const char *control, struct error *err)
{
	CLEANUP_FREE char *path = path_of(control);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;

	return fd < 0 ? error_errno(err, path ? -errno : -ENOMEM, "%s", path ? path : control) : fd;
}

int busy_look(const char *control, struct busy_now *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open_file(control, err);

	*ret = (struct busy_now){0};
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	read_file(fd, ret);
	return 0;
}

/* The process that has the lock, and no other that got its number since. */
static int signal_holder(int fd, pid_t pid, struct error *err)
{
	CLEANUP_CLOSE int process = pidfd_open(pid, 0);

	if (process < 0 || holder(fd) != pid)
		return 0; /* it ended */
	if (pidfd_send_signal(process, SIGTERM, NULL, 0) && errno != ESRCH)
		return error_errno(err, -errno, "cannot signal process %d", (int)pid);
	return 0;
}

int busy_cancel(const char *control, unsigned timeout_ms, struct busy_now *ret, struct error *err)
{
	uint64_t end = io_now_ns() + timeout_ms * 1000000ull;
	CLEANUP_CLOSE int fd = open_file(control, NULL);
	struct busy_now now = {0};
	int rc;

	if (fd >= 0)
		read_file(fd, &now);
	if (now.pid <= 0)
		return error_set(err, -ENOENT, "no operation runs on this VM");
	if (now.decided)
		return error_set(err, -EALREADY,
				 "%s (process %d) has come so far that it cannot be cancelled",
				 now.what, (int)now.pid);
	rc = signal_holder(fd, now.pid, err);
	if (rc < 0)
		return rc;
	while (holder(fd) == now.pid) {
		if (io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT, "%s (process %d) does not end", now.what,
					 (int)now.pid);
		poll(NULL, 0, LOOK_MS);
	}
	read_file(fd, ret);
	return 0;
}
