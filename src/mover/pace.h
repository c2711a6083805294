/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_PACE_H
#define WISP_MOVER_PACE_H

/*
 * A limit of bytes a second that several connections share. Bytes go in small portions, at even
 * distances: what was not used is made up for, but never more than 10 ms of it. Any thread.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define PACE_MIN (128u << 10) /* bytes a second: less cannot be even */

struct pace {
	pthread_mutex_t mutex;
	uint64_t rate;	/* bytes a second, PACE_MIN at least */
	double free_ns; /* when the next portion may go (io_now_ns()); parts of them add up */
};

void pace_init(struct pace *p, uint64_t rate);
void pace_done(struct pace *p);

/* How many of want (at least 1) bytes may go at once, and when. They count as gone. */
size_t pace_reserve(struct pace *p, size_t want, uint64_t now, uint64_t *at);

/* Waits until some of want bytes may go: *ret of them. 0 or -ECANCELED. */
int pace_wait(struct pace *p, size_t want, const _Atomic bool *const cancel[2], size_t *ret,
	      struct error *err);

#endif
