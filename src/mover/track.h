/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TRACK_H
#define WISP_MOVER_TRACK_H

/*
 * The log of written pages of a VM, for checkpoints. It may be kept by the VMM between two of them:
 * the next then knows what was written since the epoch whose identity is the log's tag.
 * Who takes it and dies loses it, and the next one compares; who fails gives it back.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lib/digest.h"
#include "mover/vmm.h"

struct track {
	struct vmm *vmm;
	uint64_t words; /* of the bitmaps: one for each chunk of memory */
	int fd;
	_Atomic uint64_t *log; /* the VMM sets bits here */
	uint64_t *dirty;       /* what was collected last */
	uint64_t *since;       /* all that was collected */
	bool on;
	char taken[DIGEST_TEXT]; /* the tag it was kept with, "": it is new */
};

/* Fills it in; end with track_done(). */
void track_init(struct track *t, struct vmm *vmm, uint64_t words);
void track_done(struct track *t);

/* Begins a log; at first all pages count as written. */
int track_start(struct track *t, struct error *err);

/* Takes the log that was kept since the epoch of this identity. 1, 0 when there is none, -errno. */
int track_take(struct track *t, const char *identity, struct error *err);

/*
 * Moves what is known to be written to t->dirty; pages are read only after that. *pages is how
 * many.
 */
int track_collect(struct track *t, uint64_t *pages, struct error *err);

/* What was collected last was not used: it comes again. */
void track_put_back(struct track *t);

/* The VMM is to keep the log, relative to the epoch of this identity. */
int track_keep(struct track *t, const char *identity, struct error *err);

/* The checkpoint failed: a log that was taken is kept on as if nothing had been. */
void track_give_back(struct track *t);

#endif
