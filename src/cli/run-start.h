/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_RUN_START_H
#define WISP_CLI_RUN_START_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/command.h"

struct run_view {
	bool detach; /* leaves when the program runs */
	bool quiet, json;
};

/* Starts the coordinator of a description and is its terminal. The exit code. */
int run_start(const struct command *cmd, const json_t *spec, const struct run_view *view);

#endif
