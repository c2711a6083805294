/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_VM_H
#define WISP_CLI_CMD_VM_H

/* What the commands about virtual machines have in common (cmd-vm*.c). */

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>

#include "lib/command.h"
#include "lib/error.h"

struct client_exec;

enum {
	OPT_JSON = 1,
	OPT_NAMES,
	OPT_TIMEOUT,
	OPT_KILL,
	OPT_ALL,
	OPT_VMM,
	OPT_FOLLOW,
};

/* Options of the smaller commands. */
struct vm_flags {
	bool json, names, all, kill, vmm, follow;
	unsigned timeout_s;
};

/* Parses them and checks that VMs are named as the command wants. 0, OPTION_HELP, or -errno. */
int vm_parse_flags(struct option_parser *parser, const struct command *cmd, int argc, char **argv,
		   struct vm_flags *ret, struct error *err);

/* One VM of a command that handles several at once. */
struct vm_job {
	pthread_t thread;
	const char *name;
	const void *options;
	json_t *vm;
	const char *how;
	struct error err;
	int r; /* a job that has failed already is not run */
};

/* Runs fn for all jobs at once, each in a thread, and waits. */
void vm_run_jobs(struct vm_job *jobs, int n, void *(*fn)(void *job));

/*
 * Starts a program as task id of the VM, and attaches to it unless detach. The exit code of this
 * command.
 */
int vm_task_run(const struct command *cmd, const char *name, const char *id, bool detach,
		const struct client_exec *exec);

/* An integer member, 0 when it is not there. */
long long vm_number(const json_t *object, const char *key);

#endif
