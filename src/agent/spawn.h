/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_SPAWN_H
#define WISP_AGENT_SPAWN_H

/* Child processes of the agent. They lead a session, and so a process group, of their own. */

#include <sys/types.h>

struct agent;
struct error;
struct runspec;

/* A child and our ends of its streams, which do not block; -1: there is none. */
struct spawned {
	pid_t pid;
	int in, out, err; /* a terminal has no err */
	int status;	  /* brings a struct spawn_failure, or the end of file when it runs */
};

struct spawn_failure {
	int stage; /* enum run_stage */
	int code;  /* errno */
};

/* The caller owns the descriptors and reaps the child. */
int spawn(const struct agent *agent, const struct runspec *spec, struct spawned *ret,
	  struct error *err);

/* With the agent's own streams; a failure is logged by the child. */
int spawn_plain(const struct agent *agent, const struct runspec *spec, pid_t *ret,
		struct error *err);

/* In any child before it becomes another program: default signals and limits. */
void child_reset(const struct agent *agent);

#endif
