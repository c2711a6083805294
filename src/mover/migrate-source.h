/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_SOURCE_H
#define WISP_MOVER_MIGRATE_SOURCE_H

/* What the files of the source share. */

#include "mover/brake.h"
#include "mover/migrate-copy.h"
#include "mover/migrate-note.h"
#include "mover/migrate-watch.h"
#include "mover/migrate.h"
#include "mover/pace.h"

struct source {
	struct migrate_options o;
	const _Atomic bool *cancel; /* NULL from the hand-over on */
	struct channel control;
	struct sender sender;
	struct pace pace; /* with a limit, until the VM is paused */
	struct note note;
	json_t *config, *report, *rounds, *obstacles;
	struct migrate_progress now;
	struct watch watch;
	uint64_t start, round_ns, step_ns[STEP_COUNT];
	struct brake brake;
	bool logging, may_be_paused, may_be_prepared, noted;
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

/* The VM runs here again, as if nothing had been; returns rc, or worse. */
int source_take_back(struct source *s, int rc, struct error *err);

/* What it took, into ret->report. */
void source_report(struct source *s, struct migrate_result *ret);

#endif
