/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_RUN_SPEC_H
#define WISP_CLI_RUN_SPEC_H

/* What wisp run makes of its options and documents: the cluster that a coordinator is to be of. */

#include "cli/env-request.h"

struct error;

struct run_options {
	struct env_request request;
	json_t *facts, *waivers; /* as the daemons get them: {NAME: TEXT}, [TEXT] */
	json_t *asked;		 /* a document of the command line's own fields, {FIELD: VALUE} */
	json_t *variables, *nodes;
	struct args documents; /* beside ENV */
	const char *name, *image, *socket, *launcher;
	unsigned ready_s;
	bool label, detach, quiet;
};

int run_options_init(struct run_options *o, struct error *err);
void run_options_done(struct run_options *o);

/*
 * Makes the cluster's description: meets the documents as the node of these facts would, builds
 * the image or finds it. argv: ENV, and the program. 0 and a new reference, or the exit code when
 * it cannot be, which is told.
 */
int run_spec_make(const struct command *cmd, struct run_options *o, const json_t *facts, int argc,
		  char **argv, json_t **ret);

#endif
