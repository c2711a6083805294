/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that writes out the disks of a VM, once for each time that it is asked. */

#include "mover/flusher.h"

#include <errno.h>
#include <time.h>

#include "lib/io.h"

#define NS 1000000000ull
#define LOOK_NS 20000000ull /* how soon a cancel is seen */

static void *flusher_main(void *arg)
{
	struct flusher *f = arg;

	f->rc = f->vmm->ops->flush(f->vmm, &f->stop, &f->err);
	return NULL;
}

static int begin(struct flusher *f, struct error *err)
{
	int r;

	if (f->runs)
		return 0;
	f->start = io_now_ns();
	r = pthread_create(&f->thread, NULL, flusher_main, f);
	f->runs = !r;
	return r ? error_errno(err, -r, "cannot make a thread") : 0;
}

/* Whether it has ended by then. */
static bool ended(struct flusher *f, uint64_t until)
{
	struct timespec time = {(time_t)(until / NS), (long)(until % NS)};

	if (pthread_clockjoin_np(f->thread, NULL, CLOCK_MONOTONIC, &time))
		return false;
	f->runs = false;
	f->last_ns = f->ns;
	f->ns = io_now_ns() - f->start;
	return true;
}

int flusher_go(struct flusher *f, unsigned wait_ms, const _Atomic bool *cancel, struct error *err)
{
	uint64_t end = io_now_ns() + wait_ms * 1000000ull, now;
	int rc = begin(f, err);

	if (rc < 0)
		return rc;
	while (!ended(f, (now = io_now_ns()) + LOOK_NS)) {
		if (cancel && *cancel)
			return error_set(err, -ECANCELED, "cancelled");
		if (now >= end)
			return 0;
	}
	if (f->rc < 0 && err)
		*err = f->err;
	return f->rc < 0 ? f->rc : 1;
}

bool flusher_is_short(const struct flusher *f, unsigned ms)
{
	return f->ns <= ms * 1000000ull || (f->last_ns && f->ns / 7 > f->last_ns / 10);
}

void flusher_stop(struct flusher *f)
{
	f->stop = true;
	if (f->runs)
		pthread_join(f->thread, NULL);
	f->runs = false;
}
