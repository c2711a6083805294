/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_MIGRATE_H
#define WISP_JOB_MIGRATE_H

/* VMs of a running cluster move to other nodes of its tree (docs/formats/job.md, Migration). */

#include "job/job.h"

/* Who began it hears, with what is valid in the call: */
struct migrate_ops {
	/* Of a VM that begins to move, or is where it will stay. */
	void (*tell)(void *arg, const json_t *event);
	/* It is over: once, not out of a call. value: what it was; with code NULL. */
	void (*over)(void *arg, int code, const char *reason, const json_t *value);
};

/*
 * Begins to move VMs. request: vms [names] (without: all at nodes that drain), to (a node),
 * bandwidth (bytes a second, of all together), parallel, max-downtime (ms). -EBUSY: some move, or a
 * checkpoint is made; -EAGAIN: the cluster does not run; -EINVAL, -ENOENT.
 */
int migrate_begin(struct job *j, const json_t *request, const struct migrate_ops *ops, void *arg,
		  struct error *err);

/*
 * VMs that have not begun to move do not, those that move stay if they still can. Who asked hears
 * in the end what became of each. -ESRCH: none moves; -EALREADY: it is too late for all.
 */
int migrate_give_up(struct job *j, struct error *err);

/* The cluster ends: who waits is told. Nothing where there is none. */
void migrate_cancel(struct job *j);

/* Whether it is open where the VM is. */
bool migrate_moves(const struct job *j, const struct guest *vm);
/* An event that a VM has ended: true: it is told again if the VM turns out to have been there. */
bool migrate_keeps(struct job *j, const struct guest *vm, const json_t *event);
/* The event progress: where somebody listens for a VM. */
void migrate_hear(struct job *j, const json_t *event);

/* While the cluster runs: drain.c. A node drains, or may have begun to: VMs leave it. */
void drain_start(struct job *j);
void drain_stop(struct job *j);
void drain_look(struct job *j);

/* -------- between its files -------- */

#define MIGRATE_GIVEN_UP "the migration was given up"

enum side_state { SIDE_NONE, SIDE_ASKED, SIDE_DONE, SIDE_FAILED, SIDE_OPEN };

/* What one of both nodes says of the hand-over. OPEN: it is not settled there, or it said nothing.
 */
struct side {
	enum side_state state;
	bool here, away; /* not settled, but a target runs it, or never will; a source runs it
			    (away) */
	struct error why;
};

enum move_state { MOVE_WAITS, MOVE_GOES, MOVE_MOVED, MOVE_STAYED };

struct move {
	struct migrate *of;
	struct guest *vm;
	uint32_t from, to; /* places */
	enum move_state state;
	char token[65];
	char *listening;
	struct side source, target;
	unsigned tries; /* to settle it */
	struct loop_source *again;
	json_t *ended[2]; /* events of its end: at its old place, at its new one */
	json_t *report;
	struct error why; /* that it stayed */
};

struct migrate {
	struct job *job;
	struct move *move;
	size_t n, next, asked;
	unsigned parallel;
	uint64_t bandwidth; /* of all; 0: no limit */
	json_int_t downtime;
	json_t *names; /* NULL: of nodes that drain */
	char *wanted;  /* target; NULL: any */
	uint64_t began;
	struct loop_source *again; /* what could not be released at once */
	bool busy;		   /* there is such */
	unsigned tries;
	struct error why;
	const struct migrate_ops *ops;
	void *arg;
};

/* migrate-plan.c: who moves where, from the nodes' facts. -ENOENT, -ENOSPC, -EINVAL. */
int migrate_plan(struct migrate *m, struct error *err);

/* migrate-vm.c: moves one of which the nodes are ready; then migrate_next(). */
void move_begin(struct move *move);
void move_give_up(struct move *move);
void move_done(struct move *move);
/* migrate.c: who asked hears of the move; it is settled. */
void migrate_tell(const struct move *move);
void migrate_next(struct migrate *m);

#endif
