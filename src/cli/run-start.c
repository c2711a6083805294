/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster's coordinator, and the first terminal of it. */

#include "cli/run-start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/job-start.h"
#include "cli/job-terminal.h"
#include "job/folder.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

/* With MPI its launcher puts labels before lines; else all of them are of the first VM. */
static bool labels(const json_t *spec)
{
	const json_t *environment = json_object_get(spec, "environment");
	const char *mpi = json_string_value(json_object_get(environment, "mpi"));

	return json_is_true(json_object_get(spec, "label")) && (!mpi || !strcmp(mpi, "none"));
}

static int attach(const json_t *spec, const struct run_view *view, int *code, struct error *err)
{
	const char *name = json_string_value(json_object_get(spec, "name"));
	CLEANUP_FREE char *socket = NULL;
	CLEANUP_FREE char *label = io_format("%s-0", name);
	struct job_terminal terminal = {.name = name,
					.hold = !view->detach,
					.input = !view->detach,
					.past = !view->detach,
					.until_run = view->detach,
					.quiet = view->quiet,
					.json = view->json,
					.label = labels(spec) ? label : NULL};
	int r = folder_socket(name, &socket, err);

	terminal.socket = socket;
	return r ? r : job_terminal_run(&terminal, code, err);
}

int run_start(const struct command *cmd, const json_t *spec, const struct run_view *view)
{
	struct error err;
	int code, r = job_start(spec, &err);

	if (!r)
		r = attach(spec, view, &code, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (view->detach && !code)
		printf("%s\n", json_string_value(json_object_get(spec, "name")));
	return code;
}
