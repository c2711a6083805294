/* SPDX-License-Identifier: Apache-2.0 */
/* A file store that somebody else copies as it was, while requests go on. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "vmm/block/file.h"

static struct file_store *file_of(struct store *store)
{
	return container_of(store, struct file_store, store);
}

/* What comes from another process: it must not disturb the disk, nor keep us waiting. */
static int check_file(const struct file_store *f, int file, struct error *err)
{
	int flags = fcntl(file, F_GETFL);
	struct stat copy, disk;

	if (flags < 0 || fstat(file, &copy) < 0 || fstat(f->fd, &disk) < 0)
		return error_errno(err, -errno, "disk %s: its copy", f->path);
	if (!S_ISREG(copy.st_mode) || (uint64_t)copy.st_size != f->store.size)
		return error_set(err, -EINVAL, "disk %s: its copy is no file of %llu bytes",
				 f->path, (unsigned long long)f->store.size);
	if ((flags & O_ACCMODE) == O_RDONLY || flags & (O_APPEND | O_DIRECT))
		return error_set(err, -EINVAL,
				 "disk %s: its copy cannot be written anywhere and in any piece",
				 f->path);
	if (copy.st_dev == disk.st_dev && copy.st_ino == disk.st_ino)
		return error_set(err, -EINVAL, "disk %s: its copy is the disk", f->path);
	return 0;
}

static void start_all(struct file_store *f, struct store_io *io)
{
	while (io) {
		struct store_io *next = io->next;

		file_start(f, io);
		io = next;
	}
}

static void on_before(void *arg, uint32_t events)
{
	struct file_store *f = arg;

	start_all(f, before_take(f->before));
	store_commit(&f->store);
}

/* What is held longest tells when to look again: a timer for each request would cost too much. */
static void on_timer(void *arg)
{
	struct file_store *f = arg;
	uint64_t rest = before_look(f->before);

	f->timed = rest && !loop_set_timer(f->before_timer, rest, 0);
}

bool file_copy_hold(struct file_store *f, struct store_io *io)
{
	if (!f->before || !before_hold(f->before, io))
		return false;
	if (!f->timed)
		f->timed = !loop_set_timer(f->before_timer, BEFORE_PATIENCE_NS, 0);
	return true;
}

void file_copy_drain(struct file_store *f)
{
	start_all(f, before_wait(f->before));
}

void file_copy_done(struct file_store *f)
{
	loop_remove(&f->before_source);
	loop_remove(&f->before_timer);
	before_destroy(f->before);
	f->before = NULL;
	f->timed = false;
}

int file_copy_start(struct store *store, int file, const void *owner, struct error *err)
{
	struct file_store *f = file_of(store);
	struct before_request request = {f->fd, store->size, file, owner};
	int r = check_file(f, file, err);

	if (!r && f->before)
		r = error_set(err, -EBUSY, "disk %s is being copied already", f->path);
	if (!r)
		r = before_create(&request, &f->before, err);
	if (r)
		return r;
	r = loop_add_fd(f->loop, before_event(f->before), EPOLLIN, on_before, f, &f->before_source);
	if (!r)
		r = loop_add_timer(f->loop, on_timer, f, &f->before_timer);
	if (!r)
		return before_shared(f->before);
	file_copy_done(f);
	return error_errno(err, r, "disk %s: its copy", f->path);
}

static bool is_owned(const struct file_store *f, const void *owner)
{
	return f->before && before_owner(f->before) == owner;
}

int file_copy_stop(struct store *store, const void *owner, uint64_t *bytes, struct error *err)
{
	struct file_store *f = file_of(store);
	int r;

	if (!is_owned(f, owner))
		return error_set(err, -ENOENT, "you have disk %s not copied", f->path);
	file_copy_drain(f);
	r = before_result(f->before, bytes, err);
	file_copy_done(f);
	store_commit(store);
	return r < 0 ? error_prefix(err, r, "disk %s", f->path) : 0;
}

void file_copy_gone(struct store *store, const void *owner)
{
	struct file_store *f = file_of(store);
	uint64_t bytes;

	if (!is_owned(f, owner))
		return;
	log_info(f->log, "block", "%s: who copied it is gone", f->path);
	before_give_up(f->before, -ECANCELED);
	file_copy_stop(store, owner, &bytes, NULL);
}
