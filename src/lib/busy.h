/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_BUSY_H
#define WISP_LIB_BUSY_H

/*
 * One operation at a time on a VM: a file beside its control socket that is locked while it lasts
 * and says what it is. The kernel knows who has the lock, so that nobody who died is taken for
 * busy.
 */

#include <stdbool.h>
#include <sys/types.h>

struct error;

#define BUSY_WHAT 32

struct busy {
	int fd; /* -1: nothing is held */
	char *path;
	char what[BUSY_WHAT];
};

/*
 * Begins an operation ("send") on the VM behind the control socket. -EBUSY names what runs there. A
 * process holds a VM once; only its own busy_ functions may open the file.
 */
int busy_begin(struct busy *b, const char *control, const char *what, struct error *err);

/* From here on it cannot be cancelled. Any thread. */
void busy_decided(struct busy *b);

/* outcome: a word for who waits for the end. Accepts what was not begun. */
void busy_end(struct busy *b, const char *outcome);

struct busy_now {
	pid_t pid; /* 0: nothing runs */
	char what[BUSY_WHAT], outcome[BUSY_WHAT];
	bool decided;
};

/* What runs on it. 0 or -errno. */
int busy_look(const char *control, struct busy_now *ret, struct error *err);

/*
 * Ends what runs there and waits until it has ended, *ret says how. -ENOENT: nothing runs;
 * -EALREADY: it is decided and cannot be cancelled; -ETIMEDOUT.
 */
int busy_cancel(const char *control, unsigned timeout_ms, struct busy_now *ret, struct error *err);

#endif
