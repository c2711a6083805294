/* SPDX-License-Identifier: Apache-2.0 */
/* Threads for one piece of work. */

#include "mover/work.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MAX_THREADS 16
#define BYTES_A_THREAD (8u << 20) /* less is not worth another thread */
#define TICK_NS 100000000
#define GENTLE 5 /* nice: a quarter of a CPU that a vCPU wants as well */

struct crew {
	struct work *work;
	pthread_mutex_t mutex;
	pthread_cond_t ended;
	unsigned running;
	int rc;
	struct error err;
};

struct member {
	struct crew *crew;
	unsigned number;
	pthread_t thread;
};

unsigned work_threads(uint64_t bytes)
{
	uint64_t useful = bytes / BYTES_A_THREAD + 1;
	cpu_set_t set;
	unsigned n = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		n = (unsigned)CPU_COUNT(&set);
	if (n > MAX_THREADS)
		n = MAX_THREADS;
	return n < useful ? n : (unsigned)useful;
}

int work_beat(const struct progress *p, struct error *err)
{
	if (p && p->cancel && *p->cancel)
		return error_set(err, -ECANCELED, "cancelled");
	if (p && p->pulse)
		(*p->pulse)++;
	return 0;
}

int work_check(const struct work *work, struct error *err)
{
	if (work->failed)
		return error_set(err, -ECANCELED, "another thread failed");
	return work_beat(work->progress, err);
}

static void leave(struct crew *crew, int rc, const struct error *err)
{
	SCOPED_LOCK(&crew->mutex);

	if (rc < 0 && crew->rc == 0) {
		crew->rc = rc;
		crew->err = *err;
		crew->work->failed = true;
	}
	crew->running--;
	pthread_cond_signal(&crew->ended);
}

static void *member_main(void *arg)
{
	struct member *member = arg;
	struct error err = {0};
	int rc;

	/* Linux: of this thread alone. The others are new each time, so nothing is to be undone. */
	if (member->crew->work->gentle)
		setpriority(PRIO_PROCESS, 0, GENTLE);
	rc = member->crew->work->run(member->crew->work, member->number, &err);

	leave(member->crew, rc, &err);
	return NULL;
}

static void report(const struct work *work, uint64_t start)
{
	const struct progress *p = work->progress;
	uint64_t ns = io_now_ns() - start;
	struct progress_now now = {.what = work->what, .done = work->done, .total = work->total};

	now.rate = (uint64_t)((double)now.done * 1e9 / (double)(ns ? ns : 1));
	now.remaining_ms = UINT64_MAX;
	if (now.rate && now.total >= now.done)
		now.remaining_ms =
			(uint64_t)((double)(now.total - now.done) * 1e3 / (double)now.rate);
	p->report(p->arg, &now);
}

static void wait_for_all(struct crew *crew)
{
	bool reports = crew->work->progress && crew->work->progress->report;
	uint64_t start = io_now_ns();
	struct timespec until;

	pthread_mutex_lock(&crew->mutex);
	while (crew->running) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += TICK_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (crew->running &&
		       pthread_cond_timedwait(&crew->ended, &crew->mutex, &until) != ETIMEDOUT)
			;
		if (!reports)
			continue;
		pthread_mutex_unlock(&crew->mutex);
		report(crew->work, start);
		pthread_mutex_lock(&crew->mutex);
	}
	pthread_mutex_unlock(&crew->mutex);
}

int work_run(struct work *work, struct error *err)
{
	struct crew crew = {.work = work,
			    .mutex = PTHREAD_MUTEX_INITIALIZER,
			    .ended = PTHREAD_COND_INITIALIZER,
			    .running = work->threads};
	CLEANUP_FREE struct member *member = calloc(work->threads, sizeof(*member));
	unsigned started = 0;

	if (work->threads == 1 && !work->gentle && !(work->progress && work->progress->report))
		return work->run(work, 0, err);
	if (!member)
		return error_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < work->threads; i++) {
		struct error reason;
		int rc;

		member[i] = (struct member){.crew = &crew, .number = i};
		rc = pthread_create(&member[i].thread, NULL, member_main, &member[i]);
		if (rc == 0) {
			started++;
			continue;
		}
		/* Threads claim their work, so fewer do all of it; none is a failure. */
		if (started && !work->all)
			rc = 0;
		else
			error_errno(&reason, -rc, "cannot start a thread");
		for (unsigned k = i; k < work->threads; k++)
			leave(&crew, -rc, &reason);
		break;
	}
	wait_for_all(&crew);
	for (unsigned i = 0; i < started; i++)
		pthread_join(member[i].thread, NULL);
	if (crew.rc < 0 && err)
		*err = crew.err;
	return crew.rc;
}
