/* SPDX-License-Identifier: Apache-2.0 */
/* Sending and receiving trees of files. */

#include "agent/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proto.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define FLUSH_AT PROTO_MAX_PAYLOAD

struct sender {
	struct copy *copy;
	struct buffer out;
};

char *copy_base_name(const char *path)
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/'; start--)
		continue;
	if (end == start || (end - start == 1 && path[start] == '.') ||
	    (end - start == 2 && path[start] == '.' && path[start + 1] == '.'))
		return NULL;
	return strndup(path + start, end - start);
}

static void report(struct copy *copy, const char *name)
{
	if (copy->progress)
		copy->progress(copy->arg, name, copy);
}

/* The receiver speaks before DONE only to say that it failed. */
static int check_peer(struct channel *ch, struct error *err)
{
	struct pollfd p = {.fd = ch->fd, .events = POLLIN};
	struct frame frame;
	int r;

	if (poll(&p, 1, 0) <= 0)
		return 0;
	r = channel_receive(ch, &frame, err);
	if (r)
		return r;
	return frame.type == FRAME_ERROR
		       ? frame_error(&frame, err)
		       : error_set(err, -EPROTO, "the receiver sent frame %d", (int)frame.type);
}

static int sender_flush(struct sender *s, struct error *err)
{
	struct error send_err;
	int r = check_peer(s->copy->channel, err);

	if (!r)
		r = channel_send_buffer(s->copy->channel, &s->out, &send_err);
	/* Its reason may have come while we were sending. */
	if (r == -EPIPE || r == -ECONNRESET) {
		r = check_peer(s->copy->channel, err);
		if (!r)
			r = error_set(err, -EPIPE, "the receiver closed the connection");
	} else if (r && err && !err->text[0]) {
		*err = send_err;
	}
	buffer_consume(&s->out, buffer_used(&s->out));
	return r;
}

static int sender_put(struct sender *s, int failed, struct error *err)
{
	if (failed)
		return error_errno(err, -ENOMEM, "cannot send");
	return buffer_used(&s->out) >= FLUSH_AT ? sender_flush(s, err) : 0;
}

static int send_data(struct sender *s, int fd, const char *name, struct error *err)
{
	ssize_t n;
	int r;

	do {
		uint8_t *p = frame_reserve(&s->out);

		if (!p)
			return error_errno(err, -ENOMEM, "cannot send %s", name);
		do
			n = read(fd, p, PROTO_MAX_PAYLOAD);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return error_errno(err, -errno, "cannot read %s", name);
		frame_commit(&s->out, FRAME_DATA, (size_t)n);
		s->copy->bytes += (uint64_t)n;
		r = sender_put(s, 0, err);
		report(s->copy, name);
	} while (!r && n);
	return r;
}

static int64_t mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int send_tree(struct sender *s, int dir, const char *path, const char *name, unsigned depth,
		     struct error *err);

static int send_dir(struct sender *s, int fd, const char *path, unsigned depth, struct error *err)
{
	CLEANUP_DIR DIR *dir = fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		close(fd);
		return error_errno(err, -errno, "cannot read directory %s", path);
	}
	if (depth >= PROTO_MAX_DEPTH)
		return error_set(err, -ELOOP, "%s is more than %u directories deep", path,
				 PROTO_MAX_DEPTH);
	for (errno = 0; !r && (e = readdir(dir)); errno = 0)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = send_tree(s, dirfd(dir), e->d_name, e->d_name, depth + 1, err);
	if (!r && errno)
		r = error_errno(err, -errno, "cannot read directory %s", path);
	return r ? r : sender_put(s, frame_append(&s->out, FRAME_LEAVE, NULL, 0), err);
}

static int send_link(struct sender *s, int dir, const char *path, struct entry *entry,
		     struct error *err)
{
	ssize_t n = readlinkat(dir, path, entry->target, sizeof(entry->target) - 1);

	if (n < 0)
		return error_errno(err, -errno, "cannot read link %s", path);
	entry->target[n] = 0;
	s->copy->files++;
	return sender_put(s, frame_append_entry(&s->out, entry), err);
}

static int send_open(struct sender *s, int fd, const char *path, struct entry *entry,
		     unsigned depth, struct error *err)
{
	int r = sender_put(s, frame_append_entry(&s->out, entry), err);

	if (entry->kind == ENTRY_DIR) {
		if (!r)
			return send_dir(s, fd, path, depth, err);
	} else if (!r) {
		r = send_data(s, fd, path, err);
		s->copy->files++;
	}
	close(fd);
	return r;
}

/*
 * One entry and what is below it. The top (depth 0) may be reached through a symbolic link,
 * whoever asked named it; below, links are sent as links.
 */
static int send_tree(struct sender *s, int dir, const char *path, const char *name, unsigned depth,
		     struct error *err)
{
	int nofollow = depth ? O_NOFOLLOW : 0;
	struct entry entry = {.kind = ENTRY_FILE};
	struct stat st;
	int fd;

	if (strlen(name) >= sizeof(entry.name))
		return error_set(err, -ENAMETOOLONG, "the name %s is too long", name);
	strcpy(entry.name, name);
	if (fstatat(dir, path, &st, depth ? AT_SYMLINK_NOFOLLOW : 0) < 0)
		return error_errno(err, -errno, "cannot read %s", path);
	entry.mtime_ns = mtime_ns(&st);
	entry.mode = st.st_mode & 0777;
	if (S_ISLNK(st.st_mode)) {
		entry.kind = ENTRY_LINK;
		return send_link(s, dir, path, &entry, err);
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return depth ? 0 : error_set(err, -EINVAL, "%s is no file or directory", path);
	/* O_NONBLOCK: should it have become a FIFO meanwhile. */
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | nofollow);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	if (S_ISDIR(st.st_mode))
		entry.kind = ENTRY_DIR;
	else
		entry.size = (uint64_t)st.st_size;
	return send_open(s, fd, path, &entry, depth, err);
}

int copy_send(struct copy *copy, const char *path, struct error *err)
{
	struct sender s = {.copy = copy};
	int r = send_tree(&s, AT_FDCWD, path, "", 0, err);

	if (!r)
		r = sender_put(&s, frame_append(&s.out, FRAME_DONE, NULL, 0), err);
	if (!r)
		r = sender_flush(&s, err);
	buffer_done(&s.out);
	return r;
}

/* A name that nobody else has in the directory; the entry gets its own when it is complete. */
struct temp {
	char name[48];
	unsigned number;
};

static void temp_next(struct temp *t)
{
	snprintf(t->name, sizeof(t->name), ".wisp-copy-%d-%u", getpid(), t->number++);
}

static void set_times(int dir, const char *name, int64_t mtime)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}};

	t[1].tv_sec = (time_t)(mtime / 1000000000);
	t[1].tv_nsec = (long)(mtime % 1000000000);
	if (t[1].tv_nsec < 0) {
		t[1].tv_nsec += 1000000000;
		t[1].tv_sec--;
	}
	/* Not every file system keeps times; the data is what counts. */
	if (utimensat(dir, name, t, AT_SYMLINK_NOFOLLOW) < 0)
		errno = 0;
}

static int temp_rename(int dir, const struct temp *t, const char *name, struct error *err)
{
	if (!renameat(dir, t->name, dir, name))
		return 0;
	return error_errno(err, -errno, "cannot create %s", name);
}

static int receive_data(struct copy *copy, int fd, const char *name, struct error *err)
{
	struct frame frame;
	int r;

	do {
		r = channel_expect(copy->channel, FRAME_DATA, &frame, err);
		if (r)
			return r;
		r = io_write_full(fd, frame.data, frame.size);
		if (r)
			return error_errno(err, r, "cannot write %s", name);
		copy->bytes += frame.size;
		report(copy, name);
	} while (frame.size);
	return 0;
}

static int receive_file(struct copy *copy, int dir, const char *name, const struct entry *entry,
			struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct temp t = {0};
	int r;

	do {
		temp_next(&t);
		fd = openat(dir, t.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return error_errno(err, -errno, "cannot create %s", name);
	r = receive_data(copy, fd, name, err);
	if (!r && fchmod(fd, entry->mode) < 0)
		r = error_errno(err, -errno, "cannot set the mode of %s", name);
	if (!r) {
		set_times(dir, t.name, entry->mtime_ns);
		r = temp_rename(dir, &t, name, err);
	}
	if (r)
		unlinkat(dir, t.name, 0);
	else
		copy->files++;
	return r;
}

static int receive_link(struct copy *copy, int dir, const char *name, const struct entry *entry,
			struct error *err)
{
	struct temp t = {0};
	int r;

	do {
		temp_next(&t);
		r = symlinkat(entry->target, dir, t.name) < 0 ? -errno : 0;
	} while (r == -EEXIST);
	if (r)
		return error_errno(err, r, "cannot create link %s", name);
	set_times(dir, t.name, entry->mtime_ns);
	r = temp_rename(dir, &t, name, err);
	if (r)
		unlinkat(dir, t.name, 0);
	else
		copy->files++;
	return r;
}

static int receive_entry(struct copy *copy, int dir, const char *name, const struct entry *entry,
			 unsigned depth, struct error *err);

/* The entries up to LEAVE. */
static int receive_entries(struct copy *copy, int dir, unsigned depth, struct error *err)
{
	for (;;) {
		struct frame frame;
		struct entry entry;
		int r = channel_receive(copy->channel, &frame, err);

		if (r)
			return r;
		if (frame.type == FRAME_LEAVE)
			return 0;
		if (frame.type == FRAME_ERROR)
			return frame_error(&frame, err);
		if (frame.type != FRAME_ENTRY)
			return error_set(err, -EPROTO, "frame %d inside a tree", (int)frame.type);
		r = frame_entry(&frame, false, &entry, err);
		if (!r)
			r = receive_entry(copy, dir, entry.name, &entry, depth + 1, err);
		if (r)
			return r;
	}
}

static int receive_dir(struct copy *copy, int dir, const char *name, const struct entry *entry,
		       unsigned depth, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	bool made;
	int r;

	if (depth >= PROTO_MAX_DEPTH)
		return error_set(err, -ELOOP, "the tree is more than %u directories deep",
				 PROTO_MAX_DEPTH);
	/* Until it is complete only we may enter; one that was there keeps files, mode and time. */
	made = !mkdirat(dir, name, 0700);
	if (!made && errno != EEXIST)
		return error_errno(err, -errno, "cannot create directory %s", name);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "cannot enter directory %s", name);
	r = receive_entries(copy, fd, depth, err);
	if (r || !made)
		return r;
	if (fchmod(fd, entry->mode) < 0)
		return error_errno(err, -errno, "cannot set the mode of %s", name);
	set_times(dir, name, entry->mtime_ns);
	return 0;
}

static int receive_entry(struct copy *copy, int dir, const char *name, const struct entry *entry,
			 unsigned depth, struct error *err)
{
	switch (entry->kind) {
	case ENTRY_FILE:
		return receive_file(copy, dir, name, entry, err);
	case ENTRY_LINK:
		return receive_link(copy, dir, name, entry, err);
	case ENTRY_DIR:
		break;
	}
	return receive_dir(copy, dir, name, entry, depth, err);
}

/* Opens the directory the tree goes to and finds its name there; *name is the caller's to free. */
static int open_destination(const char *dest, const char *source_name, char **name,
			    struct error *err)
{
	CLEANUP_FREE char *parent = NULL;
	int fd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t n;

	if (fd >= 0 && source_name) {
		*name = copy_base_name(source_name);
	} else if (fd >= 0) {
		close(fd);
		return error_set(err, -EINVAL,
				 "the source has no name of its own: name a destination that does "
				 "not exist");
	} else {
		*name = copy_base_name(dest);
		if (!*name)
			return error_set(err, -EINVAL, "\"%s\" cannot be a destination", dest);
		for (n = strlen(dest); n && dest[n - 1] == '/'; n--)
			continue;
		n -= strlen(*name);
		parent = n ? strndup(dest, n) : strdup(".");
		fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (fd < 0)
			return error_errno(err, -errno, "cannot enter %s", parent ? parent : dest);
	}
	if (!*name) {
		close(fd);
		return error_set(err, -EINVAL, "\"%s\" cannot be a name", source_name);
	}
	return fd;
}

int copy_receive(struct copy *copy, const char *dest, const char *source_name, struct error *err)
{
	CLEANUP_FREE char *name = NULL;
	CLEANUP_CLOSE int dir = open_destination(dest, source_name, &name, err);
	struct frame frame;
	struct entry entry;
	int r = dir < 0 ? dir : channel_expect(copy->channel, FRAME_ENTRY, &frame, err);

	if (!r)
		r = frame_entry(&frame, true, &entry, err);
	if (!r)
		r = receive_entry(copy, dir, name, &entry, 0, err);
	return r ? r : channel_expect(copy->channel, FRAME_DONE, &frame, err);
}
