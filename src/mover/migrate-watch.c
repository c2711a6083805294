/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at a migration while others do it. */

#include "mover/migrate-watch.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define TICK_NS 100000000

static uint64_t moved(const struct watch *w)
{
	return (w->count->pages + w->count->zero) * PAGE_BYTES;
}

/* What is known now. Lock: held. */
static struct migrate_progress look(const struct watch *w)
{
	struct migrate_progress now = w->now;
	uint64_t ns = io_now_ns() - w->then_ns;

	now.done = moved(w) - w->before;
	now.bytes = w->count->bytes;
	/* Short of that, the rate of the round before says more. */
	if (ns > TICK_NS)
		now.rate = (uint64_t)((double)now.done * 1e9 / (double)ns);
	if (now.total && now.done > now.total)
		now.total = now.done;
	return now;
}

static void *watch_main(void *arg)
{
	struct watch *w = arg;

	pthread_mutex_lock(&w->mutex);
	while (!w->ending) {
		struct migrate_progress now = look(w);
		struct timespec until;

		pthread_mutex_unlock(&w->mutex);
		w->tell(w->arg, &now);
		pthread_mutex_lock(&w->mutex);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += TICK_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (!w->ending &&
		       pthread_cond_timedwait(&w->ended, &w->mutex, &until) != ETIMEDOUT)
			;
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

void watch_start(struct watch *w, const struct migrate_options *o, const struct copy_count *count)
{
	*w = (struct watch){.tell = o->tell, .arg = o->arg, .count = count, .then_ns = io_now_ns()};
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->ended, NULL);
	if (w->tell)
		w->started = pthread_create(&w->thread, NULL, watch_main, w) == 0;
}

void watch_stop(struct watch *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->mutex);
	w->ending = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void watch_set(struct watch *w, const struct migrate_progress *now)
{
	uint64_t total;

	if (!w->started)
		return;
	SCOPED_LOCK(&w->mutex);
	total = w->now.total;
	w->now = *now;
	w->now.total = total;
}

void watch_round(struct watch *w, const struct migrate_progress *now, uint64_t bytes)
{
	if (!w->started)
		return;
	SCOPED_LOCK(&w->mutex);
	w->now = *now;
	w->now.total = bytes;
	w->before = moved(w) / PAGE_BYTES * PAGE_BYTES;
	w->then_ns = io_now_ns();
}
