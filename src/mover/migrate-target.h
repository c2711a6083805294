/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_TARGET_H
#define WISP_MOVER_MIGRATE_TARGET_H

/* What the files of the target share. */

#include "mover/migrate-copy.h"
#include "mover/migrate-note.h"
#include "mover/migrate-watch.h"
#include "mover/migrate.h"

struct target {
	struct migrate_options o;
	struct channel control;
	struct receiver receiver;
	struct note note;
	json_t *vm; /* what the VMM says of itself */
	uint32_t streams;
	struct migrate_progress now;
	struct watch watch;
	uint64_t start, step_ns[STEP_COUNT];
	bool receiving;
};

int target_at(struct target *t, enum migrate_step step);

/*
 * The next connection that says a hello with the right token, of this kind, and (but for a new
 * one) of this session. timeout_ms 0: for ever.
 */
int target_accept(struct target *t, uint32_t kind, unsigned timeout_ms, struct channel *ret,
		  struct hello *hello, struct error *err);

/* From the record `prepared` on: until the VM runs here or never will. */
int target_take_over(struct target *t, struct migrate_result *ret, struct error *err);

void target_report(struct target *t, struct migrate_result *ret);

#endif
