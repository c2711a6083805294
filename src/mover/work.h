/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_WORK_H
#define WISP_MOVER_WORK_H

/* One piece of work by several threads, with progress, cancelling, and the first error. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

struct progress_now {
	const char *what;      /* "writing", "reading" */
	uint64_t done, total;  /* bytes */
	uint64_t rate;	       /* bytes a second, since the start */
	uint64_t remaining_ms; /* UINT64_MAX when unknown */
};

/* What callers may want of a long operation. All may be NULL. */
struct progress {
	void (*report)(void *arg, const struct progress_now *now); /* ten times a second at most */
	void *arg;
	const _Atomic bool *cancel; /* when it becomes true, the operation ends with -ECANCELED */
	_Atomic uint64_t *pulse;    /* goes up as long as something gets done */
};

/* Between two pieces of work: -ECANCELED when it is to end, else 0. p may be NULL. Any thread. */
int work_beat(const struct progress *p, struct error *err);

struct work {
	unsigned threads; /* at least 1 */
	int (*run)(struct work *work, unsigned thread, struct error *err);
	void *arg;
	const struct progress *progress; /* or NULL */
	const char *what;
	bool all;	       /* fewer threads than that are a failure */
	bool gentle;	       /* the guest runs meanwhile: its vCPUs come first */
	uint64_t total;	       /* bytes, for progress */
	_Atomic uint64_t done; /* bytes; the threads add to it */
	_Atomic uint64_t next; /* for the threads: what to take next */
	_Atomic bool failed;   /* private */
};

/* Runs work->run in each thread and waits. 0, or the first error of any thread. */
int work_run(struct work *work, struct error *err);

/* For the threads, between two pieces: -ECANCELED when it is time to leave, else 0. */
int work_check(const struct work *work, struct error *err);

/* Number of threads for this many bytes: as there are CPUs for this process, 16 at most. */
unsigned work_threads(uint64_t bytes);

#endif
