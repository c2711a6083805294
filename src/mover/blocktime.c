/* SPDX-License-Identifier: Apache-2.0 */
/* Accounts of the time that threads of a VMM wait in faults. */

#include "mover/blocktime.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/faults.h"
#include "mover/index.h"

#define OTHERS 16 /* threads that are no vCPUs and wait at once; more are not accounted */

struct waiter {
	int thread;
	uint64_t page, since; /* since 0: it does not wait */
	uint64_t sum, longest, faults;
};

int blocktime_init(struct blocktime *b, const struct faults *f)
{
	*b = (struct blocktime){.vcpus = f->nthreads, .waiters = f->nthreads + OTHERS};
	b->waiter = calloc(b->waiters, sizeof(*b->waiter));
	if (!b->waiter)
		return -ENOMEM;
	pthread_mutex_init(&b->mutex, NULL);
	for (unsigned i = 0; i < b->vcpus; i++)
		b->waiter[i].thread = f->thread[i];
	return 0;
}

void blocktime_done(struct blocktime *b)
{
	if (b->waiter)
		pthread_mutex_destroy(&b->mutex);
	free(b->waiter);
	b->waiter = NULL;
}

/* Its own place, or for a thread that is no vCPU one that is free. */
static struct waiter *find(struct blocktime *b, int thread)
{
	struct waiter *free_one = NULL;

	for (unsigned i = 0; i < b->waiters; i++) {
		struct waiter *w = &b->waiter[i];

		if (thread && w->thread == thread)
			return w;
		if (i >= b->vcpus && !w->since)
			free_one = w;
	}
	return free_one;
}

void blocktime_begin(struct blocktime *b, int thread, uint64_t page)
{
	struct waiter *w;

	SCOPED_LOCK(&b->mutex);
	w = find(b, thread);
	if (w && w->since && w->page == page)
		return; /* told of again */
	b->faults++;
	if (!w)
		return;
	w->thread = thread;
	w->faults++;
	w->page = page;
	w->since = io_now_ns();
}

void blocktime_end(struct blocktime *b, uint64_t chunk, uint64_t mask)
{
	uint64_t now = io_now_ns();

	SCOPED_LOCK(&b->mutex);
	for (unsigned i = 0; i < b->waiters; i++) {
		struct waiter *w = &b->waiter[i];
		uint64_t waited = now - w->since;

		if (!w->since || w->page / CHUNK_PAGES != chunk ||
		    !(mask >> w->page % CHUNK_PAGES & 1))
			continue;
		w->sum += waited;
		w->longest = waited > w->longest ? waited : w->longest;
		w->since = 0;
	}
}

static json_t *pack(const struct waiter *w)
{
	return json_pack("{s:I,s:I,s:I}", "faults", (json_int_t)w->faults, "wait_ns",
			 (json_int_t)w->sum, "longest_ns", (json_int_t)w->longest);
}

json_t *blocktime_report(struct blocktime *b)
{
	json_t *vcpus = json_array();
	struct waiter others = {0};

	SCOPED_LOCK(&b->mutex);
	for (unsigned i = 0; i < b->vcpus; i++)
		json_array_append_new(vcpus, pack(&b->waiter[i]));
	for (unsigned i = b->vcpus; i < b->waiters; i++) {
		const struct waiter *w = &b->waiter[i];

		others.faults += w->faults;
		others.sum += w->sum;
		others.longest = w->longest > others.longest ? w->longest : others.longest;
	}
	return json_pack("{s:I,s:o,s:o}", "faults", (json_int_t)b->faults, "vcpus", vcpus, "others",
			 pack(&others));
}
