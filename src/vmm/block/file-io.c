/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the requests of the file store: many in flight through io_uring, or one after the
 * other where the kernel has none. A request may take several steps (short transfers, a flush
 * behind a durable change); file_step() prepares each, file_stepped() judges its result.
 *
 * Requests that O_DIRECT cannot carry (misaligned memory, or a part of a larger block) go
 * through a bounce buffer, synchronously, so that two of them never rewrite the same block at
 * once.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "vmm/block/file.h"
#include "vmm/dev/iov.h"

#define BOUNCE_SIZE (256u << 10)

static struct file_store *file_of(struct store *store)
{
	return (struct file_store *)store;
}

static int fallocate_mode(enum store_op op)
{
	int mode = op == STORE_ZERO_KEEP ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;

	return mode | FALLOC_FL_KEEP_SIZE;
}

/* Puts the request on the list of those whose done is called at the next commit. */
static void finish(struct file_store *f, struct store_io *io, int result)
{
	io->length = (uint64_t)(int64_t)result; /* not needed any more: keeps the result */
	io->next = NULL;
	*f->ready_tail = io;
	f->ready_tail = &io->next;
}

/*
 * The result of one step: bytes moved, 0 or -errno. Returns true when the request has to take
 * another step, else it is finished.
 */
static bool file_stepped(struct file_store *f, struct store_io *io, int64_t result)
{
	switch (io->op) {
	case STORE_READ:
	case STORE_WRITE:
		if (result == -EINTR)
			return true;
		if (result <= 0) {
			/* Nothing where the guest was told that there is something: it was cut. */
			finish(f, io, result ? (int)result : -EIO);
			return false;
		}
		io->offset += (uint64_t)result;
		io->length -= (uint64_t)result;
		iov_advance(&io->iov, &io->niov, (size_t)result);
		if (io->length)
			return true;
		break;
	case STORE_ZERO:
		if (result == -EOPNOTSUPP) { /* no holes here: zeros that take space will do */
			io->op = STORE_ZERO_KEEP;
			return true;
		}
		/* fall through */
	case STORE_ZERO_KEEP:
	case STORE_DISCARD:
		if (io->op == STORE_DISCARD && result == -EOPNOTSUPP)
			result = 0;
		if (!result && io->durable) {
			io->op = STORE_FLUSH;
			return true;
		}
		/* fall through */
	case STORE_FLUSH:
		if (result == -EINTR)
			return true;
		finish(f, io, (int)result);
		return false;
	}
	finish(f, io, 0);
	return false;
}

static int64_t errno_of(ssize_t r)
{
	return r < 0 ? -errno : r;
}

/* One step by a blocking system call. */
static int64_t step_now(struct file_store *f, struct store_io *io)
{
	switch (io->op) {
	case STORE_READ:
		return errno_of(preadv(f->fd, io->iov, (int)io->niov, (off_t)io->offset));
	case STORE_WRITE:
		return errno_of(pwritev2(f->fd, io->iov, (int)io->niov, (off_t)io->offset,
					 io->durable ? RWF_DSYNC : 0));
	case STORE_FLUSH:
		return errno_of(fdatasync(f->fd));
	case STORE_DISCARD:
	case STORE_ZERO:
	case STORE_ZERO_KEEP:
		return errno_of(fallocate(f->fd, fallocate_mode(io->op), (off_t)io->offset,
					  (off_t)io->length));
	}
	return -EOPNOTSUPP;
}

static void run_now(struct file_store *f, struct store_io *io)
{
	while (file_stepped(f, io, step_now(f, io)))
		;
}

/* Moves a window of whole blocks between the file and the bounce buffer. */
static int window_io(struct file_store *f, bool write, uint64_t offset, size_t len, int flags)
{
	for (size_t done = 0; done < len;) {
		struct iovec iov = {(char *)f->bounce + done, len - done};
		off_t at = (off_t)(offset + done);
		ssize_t n =
			write ? pwritev2(f->fd, &iov, 1, at, flags) : preadv(f->fd, &iov, 1, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

/* One window of a request that O_DIRECT cannot carry; returns bytes moved or -errno. */
static int64_t step_bounced(struct file_store *f, struct store_io *io)
{
	uint64_t mask = f->align - 1, start = io->offset & ~mask;
	uint64_t last = (io->offset + io->length + mask) & ~mask;
	size_t window = last - start < BOUNCE_SIZE ? (size_t)(last - start) : BOUNCE_SIZE;
	size_t skip = (size_t)(io->offset - start), n = window - skip;
	bool partial;
	int r = 0;

	if (!f->bounce && posix_memalign(&f->bounce, BOUNCE_SIZE, BOUNCE_SIZE))
		return -ENOMEM;
	if (n > io->length)
		n = (size_t)io->length;
	partial = skip || n != window;
	if (io->op == STORE_READ || partial)
		r = window_io(f, false, start, window, 0);
	if (r)
		return r;
	if (io->op == STORE_READ)
		return (int64_t)iov_write(io->iov, io->niov, 0, (char *)f->bounce + skip, n);
	iov_read(io->iov, io->niov, 0, (char *)f->bounce + skip, n);
	r = window_io(f, true, start, window, io->durable ? RWF_DSYNC : 0);
	return r ? r : (int64_t)n;
}

static bool needs_bounce(const struct file_store *f, const struct store_io *io)
{
	if (f->align == 1 || (io->op != STORE_READ && io->op != STORE_WRITE))
		return false;
	if ((io->offset | io->length) & (f->align - 1))
		return true;
	for (unsigned i = 0; i < io->niov; i++) {
		if (((uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len) & (f->mem_align - 1))
			return true;
	}
	return false;
}

/* Gives the ring's entries to the kernel. */
static void ring_submit(struct file_store *f)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	int r;

	while (io_uring_sq_ready(&f->ring)) {
		r = io_uring_submit(&f->ring);
		if (r == -EAGAIN || r == -EBUSY)
			nanosleep(&moment, NULL); /* the kernel has no memory for them now */
		else if (r < 0 && r != -EINTR) {
			log_error(f->log, "block", "%s: io_uring_enter: %s", f->path, strerror(-r));
			return;
		}
	}
}

static void ring_step(struct file_store *f, struct store_io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);

	if (!sqe) {
		ring_submit(f);
		sqe = io_uring_get_sqe(&f->ring);
	}
	if (!sqe) {
		run_now(f, io);
		return;
	}
	switch (io->op) {
	case STORE_READ:
		io_uring_prep_readv(sqe, f->fd, io->iov, io->niov, io->offset);
		break;
	case STORE_WRITE:
		io_uring_prep_writev2(sqe, f->fd, io->iov, io->niov, io->offset,
				      io->durable ? RWF_DSYNC : 0);
		break;
	case STORE_FLUSH:
		io_uring_prep_fsync(sqe, f->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(sqe, f->fd, fallocate_mode(io->op), (off_t)io->offset,
					(off_t)io->length);
	}
	io_uring_sqe_set_data(sqe, io);
	f->inflight++;
}

void file_start(struct file_store *f, struct store_io *io)
{
	if (needs_bounce(f, io)) {
		while (file_stepped(f, io, step_bounced(f, io)))
			;
	} else if (f->uring) {
		ring_step(f, io);
	} else {
		run_now(f, io);
	}
}

static void file_submit(struct store *store, struct store_io *io)
{
	struct file_store *f = file_of(store);

	if (!file_copy_hold(f, io))
		file_start(f, io);
}

/* Takes the completions that are there. */
static void ring_reap(struct file_store *f)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&f->ring, &cqe)) {
		struct store_io *io = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&f->ring, cqe);
		f->inflight--;
		if (result == -EAGAIN) /* what the kernel cannot do without blocking, blocks */
			run_now(f, io);
		else if (file_stepped(f, io, result))
			file_start(f, io);
	}
}

/* Tells the owner of all requests that are done. */
static void tell(struct file_store *f)
{
	struct store_io *io = f->ready;

	if (!io)
		return;
	f->ready = NULL;
	f->ready_tail = &f->ready;
	while (io) {
		struct store_io *next = io->next;

		io->done(io, (int)(int64_t)io->length);
		io = next;
	}
	if (f->store.batch_done)
		f->store.batch_done(f->store.arg);
}

/*
 * Data that the host's page cache has is there when the submission returns: looking at once
 * saves a wake-up.
 */
static void file_commit(struct store *store)
{
	struct file_store *f = file_of(store);

	if (f->uring) {
		ring_submit(f);
		ring_reap(f);
		ring_submit(f);
	}
	tell(f);
}

static void file_drain(struct store *store)
{
	struct file_store *f = file_of(store);

	if (f->before)
		file_copy_drain(f);
	file_commit(store);
	while (f->inflight) {
		io_uring_submit_and_wait(&f->ring, 1);
		file_commit(store);
	}
}

static void on_ring(void *arg, uint32_t events)
{
	struct file_store *f = arg;

	ring_reap(f);
	ring_submit(f); /* further steps */
	tell(f);
}

static void file_destroy(struct store *store)
{
	struct file_store *f = file_of(store);

	file_copy_done(f);
	file_io_done(f);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

const struct store_ops file_store_ops = {
	.submit = file_submit,
	.commit = file_commit,
	.drain = file_drain,
	.claim = file_claim,
	.file = file_file,
	.copy_start = file_copy_start,
	.copy_stop = file_copy_stop,
	.copy_gone = file_copy_gone,
	.destroy = file_destroy,
};

static int ring_create(struct file_store *f, unsigned depth)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN,
		.cq_entries = depth,
	};
	int r = io_uring_queue_init_params(depth < 128 ? depth : 128, &f->ring, &params);

	if (r == -EINVAL) { /* before Linux 5.19 */
		params = (struct io_uring_params){
			.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
			.cq_entries = depth,
		};
		r = io_uring_queue_init_params(depth < 128 ? depth : 128, &f->ring, &params);
	}
	return r;
}

int file_io_init(struct file_store *f, unsigned depth, struct error *err)
{
	int r = ring_create(f, depth);

	f->ready_tail = &f->ready;
	if (r < 0) {
		log_warn(f->log, "block",
			 "%s: io_uring is not available (%s): requests run one by one; see the "
			 "sysctl kernel.io_uring_disabled and seccomp filters (containers)",
			 f->path, strerror(-r));
		return 0;
	}
	f->uring = true;
	/* The ring is readable while completions are in it: no eventfd to read as well. */
	r = loop_add_fd(f->loop, f->ring.ring_fd, EPOLLIN, on_ring, f, &f->source);
	if (r < 0)
		return error_errno(err, r, "disk %s: cannot watch its io_uring", f->path);
	return 0;
}

void file_io_done(struct file_store *f)
{
	loop_remove(&f->source);
	if (f->uring)
		io_uring_queue_exit(&f->ring);
	f->uring = false;
	free(f->bounce);
	f->bounce = NULL;
}
