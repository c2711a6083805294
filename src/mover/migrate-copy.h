/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_COPY_H
#define WISP_MOVER_MIGRATE_COPY_H

/* The two ends of the data connections: one thread each, on either side. */

#include <pthread.h>

#include "lib/error.h"
#include "mover/compress.h"
#include "mover/migrate-message.h"
#include "mover/machine.h"

/* What has been moved so far. */
struct copy_count {
	_Atomic uint64_t bytes; /* of data on the wire */
	_Atomic uint64_t pages, zero;
};

struct sender {
	struct machine *vmm;
	int memfd;
	uint64_t memory; /* bytes */
	enum compression compression;
	unsigned streams;
	struct channel channel[MIGRATE_STREAMS];
	const _Atomic bool *cancel; /* of the caller, or NULL */
	struct copy_count count;
	_Atomic uint64_t *bitmap; /* shared with the VMM */
	int bitmap_fd;
	uint8_t *map; /* of the memory, for reading; NULL where pages are copied */
	bool huge;    /* pages that cannot be spliced */
	/* Of a round. */
	uint64_t round;
	_Atomic uint64_t next;
	uint64_t block; /* chunks that are taken at once */
	_Atomic bool failed;
	bool collected; /* all of what the round sends */
	struct lane *lane;
};

/* Makes the bitmap and the buffers; the fields above the count are set by the caller. */
int sender_init(struct sender *s, struct error *err);
/* Closes the channels also. */
void sender_done(struct sender *s);

/*
 * Sends all pages that the VMM says were written since they were sent last, and the sync. 0 when
 * the last byte has been handed over. With few pages the VMM is asked once; else piece by piece, so
 * that a page is not asked for long before it is sent.
 */
int sender_round(struct sender *s, uint64_t round, bool few, struct error *err);

/* Sends pages of a chunk on a connection. Several threads, each with its own. */
int sender_pages(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		 struct error *err);

/* Asks the VMM what is left: number of pages. */
int sender_left(struct sender *s, uint64_t *ret, struct error *err);

struct receiver {
	int memfd;
	uint64_t memory, page_size;
	unsigned streams;
	struct channel channel[MIGRATE_STREAMS];
	struct copy_count count;
	/* Private. */
	uint8_t *map; /* of memory that comes in huge pages, else NULL */
	_Atomic uint64_t *written;
	pthread_mutex_t mutex;
	pthread_cond_t arrived;
	pthread_t thread[MIGRATE_STREAMS];
	unsigned started;
	uint64_t round[MIGRATE_STREAMS];
	_Atomic bool failed, ending;
	int rc;
	struct error err;
};

/* memfd, memory and page_size are set. */
int receiver_init(struct receiver *r, struct error *err);
/* Starts the threads; all channels are there. */
int receiver_start(struct receiver *r, struct error *err);
/* Waits until all of a round is in memory. 0, or why that will not be. */
int receiver_wait(struct receiver *r, uint64_t round, unsigned timeout_ms, struct error *err);
/* From here on the kernel makes no huge pages of what it sees through our map. */
void receiver_keep_holes(struct receiver *r);
/* Ends the threads and closes the channels. */
void receiver_done(struct receiver *r);

/* One thread's work on one channel: until it ends. For tests and fuzzing. */
int receiver_run(struct receiver *r, unsigned stream, struct error *err);

#endif
