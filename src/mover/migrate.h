/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_H
#define WISP_MOVER_MIGRATE_H

/*
 * Live migration, both sides (docs/formats/migration.md). A call belongs to one thread and starts
 * its own; cancel and switch_now may be set from anywhere.
 */

#include "mover/compress.h"
#include "mover/migrate-hello.h"
#include "mover/machine.h"

enum migrate_outcome {
	MIGRATE_HERE,	   /* the VM is at the source: it runs there, nothing is left elsewhere */
	MIGRATE_MOVED,	   /* it is at the target */
	MIGRATE_UNDECIDED, /* paused until the peer answers: call the _again() function */
};

/* Where a mover is; for progress, and for tests, which let it die there. */
enum migrate_step {
	STEP_CONNECTED,
	STEP_CHECKED, /* no obstacles */
	STEP_LOGGING, /* dirty log on, or (target) streams there */
	STEP_ROUND,   /* a round is over */
	STEP_PAUSED,
	STEP_SENT, /* state and last pages are sent, or have come */
	STEP_PREPARED,
	STEP_GIVING,	/* recorded */
	STEP_HELD,	/* paused for good, not recorded yet */
	STEP_GIVEN,	/* recorded, COMMIT not sent; target: COMMIT came and is recorded */
	STEP_COMMITTED, /* COMMIT sent; target: the VM runs */
	STEP_RUNNING,	/* the source knows; the target has said so */
	STEP_REST,	/* post-copy: a session is up */
	STEP_FOLLOW,	/* post-copy: the VM runs at the target, pages follow */
	STEP_WHOLE,	/* post-copy: all of them are there; target: and it is recorded */
	STEP_ABORTED,	/* it will not run at the target: recorded */
	STEP_TOLD,	/* target: the source knows that, recorded; source: the target knows */
	STEP_COUNT,
};

/* When the VM goes: with all its memory, or before it, and the rest of the pages follows. */
enum migrate_mode {
	MIGRATE_PRECOPY,
	MIGRATE_HYBRID, /* the rest follows when rounds do not come to an end */
	MIGRATE_POSTCOPY,
};

struct migrate_progress {
	enum migrate_step step;
	uint64_t round, bytes, rate; /* bytes on the wire; of memory a second */
	uint64_t left, dirty_rate;   /* bytes; bytes a second */
	uint64_t downtime_ms;	     /* expected */
	unsigned throttle;	     /* percent */
	uint64_t done, total; /* of this round, bytes of memory; total 0: unknown; for tell */
};

/* What a mover does at a step, in a word. */
const char *migrate_phase(enum migrate_step step);

struct migrate_options {     /* of both sides */
	struct machine *vmm; /* stays the caller's */
	const char *control; /* path of its control socket, for the record; or NULL */
	const char *note;    /* path of the record */
	const char *address; /* source: the target's */
	int listen;	     /* target: listening descriptor, stays the caller's */
	struct secret secret;
	unsigned timeout_ms; /* 0: 10 s */
	unsigned load_ms;    /* 0: 60 s */
	/*
	 * How long an undecided hand-over is tried; 0: for ever, and, at a target where it is
	 * decided, 6 time-outs to tell the source.
	 */
	unsigned return_ms;
	const _Atomic bool *cancel;
	/* How it gets on, ten times a second, from a thread of its own. Or NULL. */
	void (*tell)(void *arg, const struct migrate_progress *now);
	/* Target: somebody who connected was sent away. Or NULL. */
	void (*refused)(void *arg, const char *who, const char *why);
	/* At each step. Non-zero (for tests): leave at once as if killed, doing nothing more. */
	int (*at)(void *arg, const struct migrate_progress *now);
	void *arg;
	unsigned patience_ms; /* target, post-copy: how long a VM waits for its pages; 0: 600 s */
	/* Source only. */
	enum migrate_mode mode;
	const _Atomic bool *switch_now;
	unsigned streams;   /* 0: 2 */
	uint64_t bandwidth; /* bytes a second of all connections, PACE_MIN or more; 0: no limit */
	unsigned max_downtime_ms; /* 0: 300 */
	unsigned max_rounds;	  /* 0: 30 */
	enum compression compression;
	bool throttle, dry_run;
	bool frozen_clock; /* the guest's clock does not see the downtime */
};

struct migrate_result {
	enum migrate_outcome outcome;
	/* It is settled here, and the other side may not know: the record has to stay. */
	bool untold;
	json_t *obstacles; /* array, or NULL; the caller's */
	json_t *report;	   /* numbers of bytes, pages, ns; or NULL; the caller's */
};

/*
 * 0: moved, or a dry run without obstacles. Otherwise -errno with the reason, and the outcome says
 * where the VM is: -EBUSY when there are obstacles.
 */
int migrate_send(const struct migrate_options *o, struct migrate_result *ret, struct error *err);

/*
 * Goes on after the death of a mover, or an undecided end, with what the record says. -ESTALE: it
 * is the record of another VM; nothing is done.
 */
int migrate_send_again(const struct migrate_options *o, struct migrate_result *ret,
		       struct error *err);

/*
 * Waits for a source and lets it bring its VM. 0: the VM runs here. The VM that failed to come is
 * stopped. Connections without the right token are closed and change nothing.
 */
int migrate_receive(const struct migrate_options *o, struct migrate_result *ret, struct error *err);
int migrate_receive_again(const struct migrate_options *o, struct migrate_result *ret,
			  struct error *err);

/* The reason that a call "killed" by o->at returns. */
#define MIGRATE_KILLED (-EOWNERDEAD)

#endif
