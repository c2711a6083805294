/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_GREET_H
#define WISP_MOVER_MIGRATE_GREET_H

/*
 * Who connects to a target: several say who they are at the same time, so that strangers who say
 * nothing, or little, delay nobody. One thread.
 */

#include "mover/migrate-hello.h"

#define GREETER_ROOM 16 /* who comes when it is full takes the place of the oldest */

struct caller;

struct greeter {
	int listen; /* stays the caller's */
	const struct secret *secret;
	unsigned timeout_ms; /* for each to say who it is; and of its channel */
	const _Atomic bool *cancel;
	/* Somebody was sent away. Or NULL. */
	void (*refused)(void *arg, const char *who, const char *why);
	void *arg;
	/* Private. */
	struct caller *callers; /* oldest first */
};

/*
 * The next who has the token and a hello that the check takes. The check returns 0; -EAGAIN: it is
 * asked again in the next call, if there is one in time; else -errno. timeout_ms 0: for ever.
 */
typedef int greeter_check_fn(void *arg, const struct hello *hello, struct error *err);
int greeter_next(struct greeter *g, unsigned timeout_ms, greeter_check_fn *check, void *arg,
		 struct channel *ret, struct hello *hello, struct error *err);

/* Sends away who is still there. Accepts a zeroed one. */
void greeter_done(struct greeter *g);

#endif
