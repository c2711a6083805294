/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_CLUSTER_H
#define WISP_CLI_CMD_CLUSTER_H

/* What the commands of wisp cluster have in common. */

#include "cli/commands.h"

struct error;

/*
 * Flags into a set of 1 << id, and least to most arguments (most -1: any). 0, or the exit code;
 * -1: help was printed.
 */
int cluster_parse(const struct command *cmd, int argc, char **argv, int least, int most,
		  struct option_parser *parser, unsigned *flags);

/*
 * Asks the coordinator of a cluster. Takes the request; *ret: the answer's value, a new reference,
 * or NULL.
 */
int cluster_ask(const char *name, json_t *request, json_t **ret, struct error *err);

/* The same of what may take hours. */
int cluster_ask_long(const char *name, json_t *request, json_t **ret, struct error *err);

/* -ENOENT: there is no record of such a cluster. */
int cluster_find(const char *name, const char *folder, struct error *err);

#endif
