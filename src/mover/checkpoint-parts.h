/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_CHECKPOINT_PARTS_H
#define WISP_MOVER_CHECKPOINT_PARTS_H

/*
 * A checkpoint that is being made, for its parts alone: checkpoint.c is the sequence and everything
 * but memory, checkpoint-copy.c writes memory.
 */

#include "lib/error.h"
#include "mover/brake.h"
#include "mover/disks.h"
#include "mover/operation.h"
#include "mover/track.h"
#include "mover/vmm.h"

struct checkpoint {
	const struct checkpoint_request *request;
	struct vmm vmm;
	struct vmm_memory memory;
	struct store store;
	struct writer *writer;
	struct disks disks;
	uint64_t parent;
	uint64_t *changed; /* bitmap: what differs from the parent, or NULL */
	struct track track;
	struct machine *machine; /* for the brake: when its connection ends so does that */
	struct brake brake;
	unsigned vcpus;
	bool was_running, paused;
	bool copied;	 /* memory was written while the VM ran */
	uint64_t slice;	 /* word of the bitmap where the next one begins */
	uint64_t left;	 /* bytes to be written in the pause, as far as known */
	uint64_t cut_at; /* when all had stopped, CLOCK_REALTIME */
	uint64_t pause_start, pause_ns;
	int resumed; /* 0, or -errno and why_not */
	struct error why_not;
	double rate; /* of writing, pages a nanosecond */
	json_t *rounds;
	json_t *saved; /* answer of save */
	char digest[DIGEST_TEXT];
};

#define CHECKPOINT_RATE_GUESS 0.00025 /* pages a nanosecond: 1 GB/s, until it is known */

/* Where the VMM has kept a log since the parent, nothing need be compared. */
int checkpoint_take_log(struct checkpoint *c, struct error *err);

/*
 * While the VM runs: everything, then again and again what was written meanwhile, until the rest
 * fits into the pause or does not become less.
 */
int checkpoint_copy(struct checkpoint *c, struct error *err);

/* Says that it is ready, and keeps what is left small until it is told to cut. */
int checkpoint_hold(struct checkpoint *c, struct error *err);

/* In the pause: what is left of memory. */
int checkpoint_rest(struct checkpoint *c, struct error *err);

/* The VMM is to log what is written since this epoch. Whether it does. */
bool checkpoint_keep_log(struct checkpoint *c, uint64_t epoch);

/* What the host still has in memory of the disks would be waited for in the pause. */
int checkpoint_flush(struct checkpoint *c, struct error *err);

#endif
