/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_IO_H
#define WISP_LIB_IO_H

/* Small file and socket helpers that every program needs. Any thread. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* Reads exactly n bytes. Returns 0, -EPIPE at an early end of file, or -errno. Blocking fds. */
int io_read_full(int fd, void *buf, size_t n);
int io_pread_full(int fd, void *buf, size_t n, off_t offset);
/* Writes all n bytes (SIGPIPE is never raised on sockets). Returns 0 or -errno. Blocking fds. */
int io_write_full(int fd, const void *buf, size_t n);

/*
 * Reads a whole file of at most max bytes into a new NUL-terminated buffer (the caller
 * frees it). Also works for /proc and /sys. Returns its length or -errno with the reason.
 */
ssize_t io_read_file(const char *path, size_t max, char **ret, struct error *err);

/* Replaces path with the text: written beside it, fsynced, renamed. Mode 0644. */
int io_write_file(const char *path, const void *data, size_t n, struct error *err);

/*
 * The file for us alone (flock: over nodes, too, where its file system has that), until fd and its
 * copies are closed. Does not wait. -EBUSY: another has it, and the caller has the words for that;
 * else -errno and why not, of path.
 */
int io_lock(int fd, const char *path, struct error *err);

/*
 * UNIX stream sockets. listen makes the socket with mode 0600 and replaces a stale one
 * (one that refuses connections); -EADDRINUSE when somebody answers there. Both work for
 * paths longer than sun_path. Return an fd (CLOEXEC, blocking) that the caller owns, or -errno.
 */
int io_unix_listen(const char *path, struct error *err);
int io_unix_connect(const char *path, struct error *err);
/* The fd does not block; -EAGAIN when the server's queue is full. */
int io_unix_connect_nonblock(const char *path, struct error *err);

/* The peer's uid as the kernel knows it (SO_PEERCRED), pid in *pid when not NULL; or -errno. */
int io_peer_uid(int fd, uid_t *uid, pid_t *pid);

/*
 * Opens /dev/null for those of descriptors 0 to 2 that are closed, so that no other file gets
 * their numbers; first thing in a main function.
 */
void io_open_standard_fds(void);

/* mkdir -p with the mode for new directories. */
int io_make_dirs(const char *path, mode_t mode, struct error *err);

/* snprintf into a new string the caller frees; NULL when out of memory. */
char *io_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t io_now_ns(void);

#endif
