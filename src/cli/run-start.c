/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster's coordinator, and the first terminal of it. */

#include "cli/run-start.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/job-start.h"
#include "cli/job-terminal.h"
#include "job/folder.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static int attach(const char *name, const struct run_view *view, int *code, struct error *err)
{
	CLEANUP_FREE char *socket = NULL;
	CLEANUP_FREE char *label = io_format("%s-0", name);
	struct job_terminal terminal = {.name = name,
					.hold = !view->detach,
					.input = !view->detach,
					.past = !view->detach,
					.until_run = view->detach,
					.quiet = view->quiet,
					.json = view->json,
					.label = view->label ? label : NULL};
	int r = folder_socket(name, &socket, err);

	terminal.socket = socket;
	return r ? r : job_terminal_run(&terminal, code, err);
}

int run_start(const struct command *cmd, const json_t *spec, const struct run_view *view)
{
	const char *name = json_string_value(json_object_get(spec, "name"));
	struct error err;
	int code, r = job_start(spec, &err);

	if (!r)
		r = attach(name, view, &code, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (view->detach && !code)
		printf("%s\n", name);
	return code;
}
