/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_PROGRESS_H
#define WISP_IMAGE_PROGRESS_H

/*
 * Shows the steps of long work with their times on standard error: one line a step, on a
 * terminal with what it is doing now. Interrupts (^C, SIGTERM, SIGHUP) are held back while the work
 * runs, so that it can clean up after itself. One thread.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;

struct progress {
	bool quiet, terminal;
	int signals;	       /* signalfd: readable once the user wants us to stop */
	uint64_t step_started; /* monotonic ns */
	char step[32];
};

int progress_init(struct progress *progress, bool quiet, struct error *err);
/* Lets interrupts through again. */
void progress_done(struct progress *progress);

/* Begins a step; what it does now; its end with a summary. */
void progress_step(struct progress *progress, const char *step);
void progress_now(struct progress *progress, const char *text);
void progress_end(struct progress *progress, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* -EINTR with the reason when the user wants us to stop, else 0. */
int progress_check(struct progress *progress, struct error *err);

#endif
