/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_JOB_START_H
#define WISP_CLI_JOB_START_H

/* Processes that a cluster needs behind the command that makes it. */

#include <jansson.h>
#include <stdbool.h>

struct error;

/* clang-format off */
#define JOB_LAUNCHER_ROW(id) \
	{id, "launcher", 0, "COMMAND", "Reach the other nodes by a command, say \"ssh -o BatchMode=yes\", as wispd --launcher does: you need no key, and where root has no wispd one of yours is started there", 0}
/* clang-format on */

struct job_daemon {
	const char *socket;   /* NULL: it is found */
	const char *launcher; /* NULL: other nodes are called, if there are some */
	bool alone;	      /* the cluster is on this machine only */
};

/*
 * The facts of this node from its daemon, and where that is asked (a new string). Alone, one of the
 * user's is started where root has none, and stays for the next cluster. With a launcher it is one
 * of the user's in any case, which reaches others by it, and ends when nobody has needed it for a
 * while.
 */
int job_find_daemon(const struct job_daemon *wanted, char **socket, json_t **facts,
		    struct error *err);

/* Starts the coordinator of what spec describes, in a session of its own; it goes on without us. */
int job_start(const json_t *spec, struct error *err);

#endif
