/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_HEAD_H
#define WISP_MOVER_HEAD_H

/* What all commands of wisp-mover begin and end with: options, signals, errors, the exit code. */

#include <signal.h>
#include <stdbool.h>

#include "lib/busy.h"
#include "lib/command.h"
#include "mover/exit-code.h"

struct error;

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_CANCELLED 130

struct head {
	const struct command *cmd;
	_Atomic bool cancel;	 /* SIGINT, SIGTERM or SIGHUP came */
	_Atomic bool switch_now; /* SIGUSR1 */
	struct busy busy;	 /* from head_begin() to head_end() */
	sigset_t signals;	 /* private */
};

/* Takes an option. 0 or -errno. */
typedef int head_option_fn(void *arg, int opt, const char *value, struct error *err);

/* All options go to fn; there are no other arguments. 0; 1 after --help; or -errno. */
int head_parse(struct head *h, int argc, char **argv, head_option_fn *fn, void *arg,
	       struct error *err);

/*
 * Begins the operation on the VM behind a control socket, of which there can be one at a time. From
 * here on signals only set cancel and switch_now. Before other threads are started; h lives as long
 * as the process.
 */
int head_begin(struct head *h, const char *control, struct error *err);

/* It has ended, with 0 or -errno. */
void head_end(struct head *h, int rc);

/* Says why the command failed and returns code. */
int head_fail(const struct head *h, int code, const struct error *err);

/* "frozen" or "elapsed". */
int head_clock(const char *value, bool *elapsed, struct error *err);

#endif
