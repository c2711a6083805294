/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_SOURCE_H
#define WISP_MOVER_MIGRATE_SOURCE_H

/* What the files of the source share. */

#include "mover/brake.h"
#include "mover/flusher.h"
#include "mover/migrate-copy.h"
#include "mover/migrate-note.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-watch.h"
#include "mover/migrate.h"
#include "mover/pace.h"

struct source {
	struct migrate_options o;
	const _Atomic bool *cancel; /* NULL from the hand-over on */
	struct channel control;
	struct sender sender;
	struct channel rest[MIGRATE_STREAMS]; /* post-copy: until a session has them */
	unsigned rest_streams;
	struct pusher *pusher;
	uint64_t unit;	  /* bytes of a page at the target, when those are huge */
	bool memory_gone; /* the VMM is dead, and so is the mover that had its memory */
	bool follows;	  /* the VM goes before the rest of its pages */
	struct pace pace; /* with a limit, until the VM is paused */
	struct note note;
	json_t *config, *report, *rounds, *obstacles;
	struct migrate_progress now;
	struct watch watch;
	uint64_t start, round_ns, step_ns[STEP_COUNT];
	struct brake brake;
	struct flusher flusher; /* disks are written out while the VM runs, not in the pause */
	bool logging, may_be_paused, may_be_prepared, noted;
	bool untold; /* it has stayed here, and the target may not know */
};

void source_init(struct source *s, const struct migrate_options *o);
void source_done(struct source *s);
int source_at(struct source *s, enum migrate_step step);

/* A connection that has said hello. */
int source_connect(struct source *s, uint32_t kind, uint32_t stream, struct channel *ret,
		   struct error *err);

/*
 * From PREPARED on. On failure ret->outcome is MIGRATE_HERE when the VM may be taken back, else it
 * stays paused.
 */
int source_hand_over(struct source *s, struct migrate_result *ret, struct error *err);

/* The VM runs here again, and the target is told; returns rc, or worse. */
int source_take_back(struct source *s, int rc, struct error *err);

/* What it took, into ret->report. */
void source_report(struct source *s, struct migrate_result *ret);

/* -------- post-copy (migrate-rest-source.c) -------- */

/* The target says how large its pages are: of any missing page all around it is missing. */
int source_rest_unit(struct source *s, const struct message *m, struct error *err);
/* The connections of the first session, before the VM is paused. */
int source_rest_connect(struct source *s, struct error *err);
/* In the pause: says what is missing and begins to send it. */
int source_rest_begin(struct source *s, struct error *err);
/* After a return: a new session, or memory_gone. */
int source_rest_return(struct source *s, struct error *err);
/* The VM runs at the target. 1: it has all pages; 0: the connections ended; or -errno. */
int source_rest_follow(struct source *s, struct error *err);
void source_rest_stop(struct source *s);
void source_rest_done(struct source *s);

#endif
