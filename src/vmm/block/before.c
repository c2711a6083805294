/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copy before write. Neither side waits for the other: who finds a cluster's byte 0 after reading
 * the cluster has read what the disk had, since the byte is set before any request that changes
 * the cluster goes on. Both may then write the same to the copy.
 */

#include "vmm/block/before.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/block/store.h"

#define STACK_SIZE (64 * 1024)
#define NS 1000000000ull
struct io_list {
	struct store_io *first, **tail;
};

struct before {
	pthread_mutex_t lock;
	pthread_cond_t work, progress;
	const void *owner;
	int disk, file, shared, event;
	uint64_t size, clusters;
	_Atomic uint8_t *state; /* the memfd; another process writes to it as well */
	uint8_t *buf;		/* a cluster; the thread's. Mapped: the heap would keep it */
	struct io_list waiting, ready;
	struct store_io *current; /* what the thread copies for, until somebody takes it away */
	bool stop;
	int error;
	uint64_t bytes;
};

static void list_init(struct io_list *list)
{
	*list = (struct io_list){.tail = &list->first};
}

static void list_add(struct io_list *list, struct store_io *io)
{
	io->next = NULL;
	*list->tail = io;
	list->tail = &io->next;
}

static struct store_io *list_take(struct io_list *list)
{
	struct store_io *io = list->first;

	if (!io)
		return NULL;
	list->first = io->next;
	if (!list->first)
		list->tail = &list->first;
	return io;
}

static void before_free(struct before *b)
{
	if (b->state)
		munmap((void *)b->state, b->clusters + 1);
	if (b->buf)
		munmap(b->buf, BEFORE_CLUSTER);
	cleanup_close_fd(&b->disk);
	cleanup_close_fd(&b->file);
	cleanup_close_fd(&b->shared);
	cleanup_close_fd(&b->event);
	pthread_cond_destroy(&b->progress);
	pthread_cond_destroy(&b->work);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* -------- the thread -------- */

static bool all_zero(const uint8_t *data, size_t n)
{
	return !data[0] && !memcmp(data, data + 1, n - 1);
}

static int write_all(int fd, const uint8_t *data, size_t n, uint64_t at)
{
	while (n) {
		ssize_t done = pwrite(fd, data, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		data += done;
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

/* A guest that trims its disk does so mostly where there is nothing. No position counts here. */
static bool is_hole(int fd, uint64_t at, size_t n)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= at + n;
}

/* Bytes written, or -errno. */
static int64_t copy_cluster(struct before *b, uint64_t cluster)
{
	uint64_t at = cluster * BEFORE_CLUSTER, left = b->size - at;
	size_t n = left < BEFORE_CLUSTER ? (size_t)left : BEFORE_CLUSTER;
	int r;

	if (b->state[cluster])
		return 0;
	if (is_hole(b->disk, at, n))
		n = 0;
	r = io_pread_full(b->disk, b->buf, n, (off_t)at);
	if (!r && n && all_zero(b->buf, n))
		n = 0;
	if (!r && n)
		r = write_all(b->file, b->buf, n, at);
	if (r)
		return r;
	b->state[cluster] = 1;
	return (int64_t)n;
}

/* Bytes written, or -errno. Nothing of the request is looked at that may be taken away. */
static int64_t copy_range(struct before *b, uint64_t offset, uint64_t length)
{
	uint64_t end = (offset + length - 1) / BEFORE_CLUSTER;
	int64_t bytes = 0;

	for (uint64_t c = offset / BEFORE_CLUSTER; c <= end; c++) {
		int64_t n = copy_cluster(b, c);

		if (n < 0)
			return n;
		bytes += n;
	}
	return bytes;
}

/* With the lock held. */
static void tell_ready(struct before *b)
{
	eventfd_write(b->event, 1);
	pthread_cond_broadcast(&b->progress);
}

/* With the lock held. */
static void give_up(struct before *b, int error)
{
	struct store_io *io;

	if (!b->error)
		b->error = error;
	b->state[b->clusters] = 1;
	if (b->current)
		list_add(&b->ready, b->current);
	b->current = NULL;
	while ((io = list_take(&b->waiting)))
		list_add(&b->ready, io);
	tell_ready(b);
}

/* With the lock held, which it gives back while it copies. */
static void serve(struct before *b, struct store_io *io)
{
	uint64_t offset = io->offset, length = io->length;
	int64_t n;

	b->current = io;
	pthread_mutex_unlock(&b->lock);
	n = copy_range(b, offset, length);
	pthread_mutex_lock(&b->lock);
	if (n < 0)
		give_up(b, (int)n);
	else
		b->bytes += (uint64_t)n;
	if (b->current)
		list_add(&b->ready, b->current);
	b->current = NULL;
	tell_ready(b);
}

static void *before_main(void *arg)
{
	struct before *b = arg;

	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		struct store_io *io = list_take(&b->waiting);

		if (io)
			serve(b, io);
		else
			pthread_cond_wait(&b->work, &b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	before_free(b);
	return NULL;
}

/*
 * Detached, and the one that closes the copy: a file system that hangs must not keep the VM. No
 * signal interrupts it or ends us.
 */
static int start_thread(struct before *b)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &attr, before_main, b);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

/* -------- the VM's thread -------- */

/* All of it is there at once: there may be no room for a page of it later. */
static int make_shared(struct before *b)
{
	off_t bytes = (off_t)b->clusters + 1;
	void *map;

	b->shared = memfd_create("disk-copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->shared < 0 || ftruncate(b->shared, bytes) < 0 ||
	    fallocate(b->shared, 0, 0, bytes) < 0 ||
	    fcntl(b->shared, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	map = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->shared, 0);
	if (map == MAP_FAILED)
		return -errno;
	b->state = map;
	return 0;
}

static int make_buffer(struct before *b)
{
	void *map = mmap(NULL, BEFORE_CLUSTER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	if (map == MAP_FAILED)
		return -errno;
	b->buf = map;
	return 0;
}

int before_create(const struct before_request *request, struct before **ret, struct error *err)
{
	struct before *b = calloc(1, sizeof(*b));
	int r = 0;

	if (!b)
		return error_errno(err, -ENOMEM, "copy of a disk");
	*b = (struct before){.owner = request->owner,
			     .size = request->size,
			     .clusters = (request->size + BEFORE_CLUSTER - 1) / BEFORE_CLUSTER,
			     .disk = fcntl(request->disk, F_DUPFD_CLOEXEC, 0),
			     .file = fcntl(request->file, F_DUPFD_CLOEXEC, 0),
			     .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			     .shared = -1};
	list_init(&b->waiting);
	list_init(&b->ready);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->progress, NULL);
	if (b->disk < 0 || b->file < 0 || b->event < 0)
		r = -errno;
	if (!r)
		r = make_shared(b);
	if (!r)
		r = make_buffer(b);
	if (!r)
		r = start_thread(b);
	if (r) {
		before_free(b);
		return error_errno(err, r, "copy of a disk");
	}
	*ret = b;
	return 0;
}

void before_destroy(struct before *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
}

const void *before_owner(const struct before *b)
{
	return b->owner;
}

int before_shared(const struct before *b)
{
	return b->shared;
}

int before_event(const struct before *b)
{
	return b->event;
}

static bool is_copied(const struct before *b, const struct store_io *io)
{
	uint64_t end = (io->offset + io->length - 1) / BEFORE_CLUSTER;

	for (uint64_t c = io->offset / BEFORE_CLUSTER; c <= end; c++)
		if (!b->state[c])
			return false;
	return true;
}

bool before_hold(struct before *b, struct store_io *io)
{
	if (io->op == STORE_READ || io->op == STORE_FLUSH || !io->length || is_copied(b, io))
		return false;
	SCOPED_LOCK(&b->lock);
	if (b->error)
		return false;
	io->held_ns = io_now_ns();
	list_add(&b->waiting, io);
	pthread_cond_signal(&b->work);
	return true;
}

/* With the lock held. */
static struct store_io *take_ready(struct before *b)
{
	struct store_io *first = b->ready.first;
	eventfd_t count;

	eventfd_read(b->event, &count);
	list_init(&b->ready);
	return first;
}

struct store_io *before_take(struct before *b)
{
	SCOPED_LOCK(&b->lock);
	return take_ready(b);
}

/* With the lock held. When the patience with the oldest request ends; 0: none is held. */
static uint64_t deadline(const struct before *b)
{
	const struct store_io *oldest = b->current ? b->current : b->waiting.first;

	return oldest ? oldest->held_ns + BEFORE_PATIENCE_NS : 0;
}

struct store_io *before_wait(struct before *b)
{
	uint64_t end;
	int r = 0;

	SCOPED_LOCK(&b->lock);
	while (!r && (end = deadline(b))) {
		struct timespec until = {(time_t)(end / NS), (long)(end % NS)};

		r = pthread_cond_clockwait(&b->progress, &b->lock, CLOCK_MONOTONIC, &until);
	}
	if (r)
		give_up(b, -r);
	return take_ready(b);
}

uint64_t before_look(struct before *b)
{
	uint64_t end, now = io_now_ns();

	SCOPED_LOCK(&b->lock);
	end = deadline(b);
	if (end > now)
		return end - now;
	if (end)
		give_up(b, -ETIMEDOUT);
	return 0;
}

void before_give_up(struct before *b, int error)
{
	SCOPED_LOCK(&b->lock);
	give_up(b, error);
}

int before_result(struct before *b, uint64_t *bytes, struct error *err)
{
	SCOPED_LOCK(&b->lock);
	if (b->error == -ETIMEDOUT)
		return error_set(
			err, -ETIMEDOUT,
			"a write of the VM waited %llu s for what it changes to be copied: "
			"the copy's file system hangs or is too slow; the VM goes on, save "
			"it elsewhere",
			BEFORE_PATIENCE_NS / NS);
	if (b->error)
		return error_errno(err, b->error, "what the VM changed could not be copied before");
	*bytes = b->bytes;
	return 0;
}
