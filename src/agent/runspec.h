/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_RUNSPEC_H
#define WISP_AGENT_RUNSPEC_H

/* What an exec request asks for, checked and ready for execve. */

#include <jansson.h>
#include <stdbool.h>

#include "agent/user.h"

struct error;

struct runspec {
	char *path; /* looked up in PATH of env */
	char **argv, **env;
	char *cwd; /* NULL: the home, or / */
	struct user user;
	bool terminal;
	unsigned rows, cols;
};

/* Fills ret from the request. Free with runspec_done(), also after a failure. */
int runspec_parse(const json_t *request, struct runspec *ret, struct error *err);
void runspec_done(struct runspec *spec);

/* Where a child failed. */
enum run_stage { STAGE_USER, STAGE_CWD, STAGE_TERMINAL, STAGE_EXEC };
/* In the child: becomes the user, enters the directory, executes. Returns the stage, errno set. */
enum run_stage runspec_exec(const struct runspec *spec);
/* The reason for people; returns code. */
int runspec_error(const struct runspec *spec, enum run_stage stage, int code, struct error *err);

#endif
