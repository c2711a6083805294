/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_CLUSTER_H
#define WISP_CLI_CMD_CLUSTER_H

/* What the commands of wisp cluster have in common. */

#include "cli/commands.h"
#include "node/ask.h"

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
typedef int cluster_ask_fn(const char *name, json_t *request, json_t **ret, struct error *err);
cluster_ask_fn cluster_ask;

/* The same of what may take hours. */
cluster_ask_fn cluster_ask_long;

/* Besides, hears what it says meanwhile, and what is asked for when a signal comes to end it. */
struct cluster_watch {
	ask_event_fn *event; /* or NULL */
	void *arg;
	const char *interrupt; /* as of ask_set_interrupt(); NULL: the signal ends the program */
};

int cluster_ask_watching(const char *name, json_t *request, const struct cluster_watch *watch,
			 json_t **ret, struct error *err);

/* All of a command that tells one cluster to do something: its exit code. */
int cluster_tell(const struct command *cmd, int argc, char **argv, const char *op,
		 cluster_ask_fn *tell);

/* Ends it; wait: until it has, and forgets it. cmd-cluster-hold.c */
int cluster_stop(const char *name, bool wait, struct error *err);

/* -ENOENT: there is no record of such a cluster. */
int cluster_find(const char *name, const char *folder, struct error *err);

#endif
