/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_TARGET_H
#define WISP_MOVER_MIGRATE_TARGET_H

/* What the files of the target share. */

#include "mover/migrate-copy.h"
#include "mover/migrate-greet.h"
#include "mover/migrate-note.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-watch.h"
#include "mover/migrate.h"

struct target {
	struct migrate_options o;
	struct greeter greeter;
	struct secret secret;
	struct channel control;
	struct receiver receiver;
	struct note note;
	json_t *vm; /* what the VMM says of itself */
	uint32_t streams;
	/* Post-copy. */
	bool may_follow;	  /* pages may follow the VM */
	uint64_t *missing, *zero; /* sets that came up to chunk `sets`, or NULL */
	uint64_t sets;
	struct channel rest[MIGRATE_STREAMS]; /* until a session has them */
	uint32_t rest_streams;
	struct catcher *catcher; /* from the load on */
	pthread_t resumer;
	bool resuming;
	_Atomic bool resumed;
	int resume_rc;
	struct error resume_err;
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

/* Records a state. rest: pages have still to come. */
int target_note(struct target *t, enum note_state state, bool rest, struct error *err);

/*
 * It will never run here, which the source may not know: records that, and says err->text to it.
 * Returns code, or worse.
 */
int target_abort(struct target *t, int code, struct error *err);

/*
 * The VMM refused to resume, with rc and err: as target_abort() if the VM has surely not run, which
 * may be given back; else -ENOTRECOVERABLE.
 */
int target_refused(struct target *t, int rc, struct error *err);

/*
 * The source returns within timeout_ms (0: for ever), and hears where we are. 0, also when that
 * came to nothing: then there is no connection.
 */
int target_let_in(struct target *t, unsigned timeout_ms, struct error *err);

/* From the record `prepared` on: until the VM runs here or never will. */
int target_take_over(struct target *t, struct migrate_result *ret, struct error *err);

void target_report(struct target *t, struct migrate_result *ret);

/* -------- post-copy (migrate-rest-target.c) -------- */

/* What the source wants to do, and what is in the way of that. */
void target_rest_mode(struct target *t, const json_t *config, json_t *obstacles);
/* Tells the source of huge pages, which it sends whole. */
int target_rest_unit(struct target *t, const json_t *config, struct error *err);
/* The connections of a session. */
int target_rest_accept(struct target *t, struct error *err);
void target_rest_close(struct target *t);
/* One of the records that say what is missing. */
int target_rest_sets(struct target *t, const struct message *m, struct error *err);
/* All of them have come. */
bool target_rest_known(const struct target *t);
/* Around the load: faults are served. loaded: rc is how it went; returns it. */
int target_rest_begin(struct target *t, struct error *err);
int target_rest_loaded(struct target *t, int rc, struct error *err);
/* A new mover with a record that says that pages follow: takes the VM over. */
int target_rest_again(struct target *t, struct error *err);
/* The session is over; the source that has returned makes a new one (or says something else). */
int target_rest_stop(struct target *t, struct error *err);
int target_rest_return(struct target *t, struct error *err);
/* COMMIT has come: the VM is resumed, by a thread of its own. */
int target_rest_resume(struct target *t, struct error *err);
/* Until all pages are there. -ESRCH and others: the VM is lost, or (-ECANCELED) left waiting. */
int target_rest_follow(struct target *t, struct error *err);
void target_rest_done(struct target *t);

#endif
