/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_HEAD_H
#define WISP_MOVER_HEAD_H

/*
 * What all commands of wisp-mover begin and end with: the options that all have, signals, how it
 * gets on, errors, the exit code.
 */

#include <signal.h>
#include <stdbool.h>

#include "lib/busy.h"
#include "lib/command.h"
#include "mover/exit-code.h"
#include "mover/show.h"

struct error;

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_CANCELLED 130

/* Ids of the options that all have; those of a command begin with HEAD_OPTIONS. */
enum {
	HEAD_CONTROL = 1,
	HEAD_PROGRESS,
	HEAD_JSON,
	HEAD_OPTIONS,
};

struct head {
	const struct command *cmd;
	const char *control; /* the control socket, or NULL */
	bool json;
	struct show show;	 /* from head_parse() to head_end() */
	_Atomic bool cancel;	 /* SIGINT, SIGTERM or SIGHUP came */
	_Atomic bool switch_now; /* SIGUSR1 */
	struct busy busy;	 /* from head_begin() to head_end() */
	sigset_t signals;	 /* private */
};

/* Takes an option. 0 or -errno. */
typedef int head_option_fn(void *arg, int opt, const char *value, struct error *err);

/* All other options go to fn; there are no other arguments. 0; 1 after --help; or -errno. */
int head_parse(struct head *h, int argc, char **argv, head_option_fn *fn, void *arg,
	       struct error *err);

/*
 * Begins the operation on the VM behind the control socket, of which there can be one at a time.
 * From here on signals only set cancel and switch_now. Before other threads are started; h lives as
 * long as the process.
 */
int head_begin(struct head *h, struct error *err);

/* It has ended, with 0 or -errno. */
void head_end(struct head *h, int rc);

/* Says why the command failed and returns code; or the one that goes with -errno. */
int head_fail(const struct head *h, int code, const struct error *err);
int head_failed(const struct head *h, int rc, const struct error *err);

/* "frozen" or "elapsed". */
int head_clock(const char *value, bool *elapsed, struct error *err);

#endif
