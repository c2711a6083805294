/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_BLOCKTIME_H
#define WISP_MOVER_BLOCKTIME_H

/* How long each vCPU has waited for pages that were missing. Any thread. */

#include <jansson.h>
#include <pthread.h>
#include <stdint.h>

struct faults;

struct blocktime {
	pthread_mutex_t mutex;
	struct waiter *waiter; /* the vCPUs, then other threads as they come */
	unsigned vcpus, waiters;
	uint64_t faults;
};

/* Whose threads they are. 0 or -ENOMEM. blocktime_done() accepts a zeroed one. */
int blocktime_init(struct blocktime *b, const struct faults *f);
void blocktime_done(struct blocktime *b);

/* A thread (0: unknown) waits for a page; the pages of a chunk's mask are there. */
void blocktime_begin(struct blocktime *b, int thread, uint64_t page);
void blocktime_end(struct blocktime *b, uint64_t chunk, uint64_t mask);

/* {faults, vcpus: [{wait_ns, longest_ns, faults}], others: as one of them}: a new object. */
json_t *blocktime_report(struct blocktime *b);

#endif
