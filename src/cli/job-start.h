/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_JOB_START_H
#define WISP_CLI_JOB_START_H

/* Processes that a cluster needs behind the command that makes it. */

#include <jansson.h>
#include <stdbool.h>

struct error;

/*
 * The facts of this node, from its daemon at *socket (NULL: found, a new string). alone: the
 * cluster is on this machine only, so where root has no daemon one of the user's is started; it
 * stays for the next cluster.
 */
int job_find_daemon(char **socket, bool alone, json_t **facts, struct error *err);

/* Starts the coordinator of what spec describes, in a session of its own; it goes on without us. */
int job_start(const json_t *spec, struct error *err);

#endif
