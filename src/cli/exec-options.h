/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_EXEC_OPTIONS_H
#define WISP_CLI_EXEC_OPTIONS_H

/* The options of commands that run a program elsewhere: wisp lab exec, wisp vm exec and shell. */

#include "agent/client.h"
#include "lib/args.h"
#include "lib/command.h"

struct error;

enum {
	EXEC_OPT_USER = 1000, /* beyond the ids of the commands themselves */
	EXEC_OPT_CWD,
	EXEC_OPT_ENV,
	EXEC_OPT_TTY,
	EXEC_OPT_NO_TTY,
};

/* Rows for a table of options. place: "node", "guest"; the others end their sentences. */
/* clang-format off */
#define EXEC_OPTION_ROWS(place, cwd_default, env_more) \
	{.id = EXEC_OPT_USER, .name = "user", .letter = 'u', .arg = "USER", \
	 .help = "Run as this user of the " place " (default root)"}, \
	{.id = EXEC_OPT_CWD, .name = "cwd", .letter = 'C', .arg = "DIR", \
	 .help = "Run in this directory (default " cwd_default ")"}, \
	{.id = EXEC_OPT_ENV, .name = "env", .letter = 'e', .arg = "NAME=VALUE", \
	 .help = "Set a variable (may be repeated)" env_more}, \
	{.id = EXEC_OPT_TTY, .name = "tty", .letter = 't', \
	 .help = "Give it a terminal (default when input and output are terminals)"}, \
	{.id = EXEC_OPT_NO_TTY, .name = "no-tty", .letter = 'T', .help = "Give it none"}
/* clang-format on */

struct exec_options {
	const char *user, *cwd;
	struct args env; /* the caller's to free */
	int tty;	 /* 1 yes, 0 no, -1 when both ends are terminals */
};

/* Takes one option of the rows above. 0 or -errno. */
int exec_option(struct exec_options *o, int id, const char *value, struct error *err);

/*
 * What to run: argv is "PLACE [--] [PROGRAM ...]" of argc words and room for a NULL behind them;
 * without a program a shell. The result points into both and uses our standard streams.
 */
struct client_exec exec_prepare(const struct exec_options *o, int argc, char **argv);

#endif
