/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_WATCH_H
#define WISP_MOVER_MIGRATE_WATCH_H

/*
 * Tells how a migration gets on, ten times a second, by a thread of its own: the others are busy.
 */

#include <pthread.h>

#include "mover/migrate-copy.h"
#include "mover/migrate.h"

struct watch {
	/* Private. */
	pthread_mutex_t mutex;
	pthread_cond_t ended;
	pthread_t thread;
	bool started, ending;
	void (*tell)(void *arg, const struct migrate_progress *now);
	void *arg;
	struct migrate_progress now;
	const struct copy_count *count;
	uint64_t before, then_ns; /* pages moved, and time, when the round began */
};

/* Begins, if o->tell wants to know. Without a thread (out of memory) nothing is told. */
void watch_start(struct watch *w, const struct migrate_options *o, const struct copy_count *count);
/* Accepts one that was not started. */
void watch_stop(struct watch *w);

/* The mover is at now. */
void watch_set(struct watch *w, const struct migrate_progress *now);
/* A round of so many bytes (0: unknown) begins. */
void watch_round(struct watch *w, const struct migrate_progress *now, uint64_t bytes);

#endif
