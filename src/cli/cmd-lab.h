/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_LAB_H
#define WISP_CLI_CMD_LAB_H

/* What the commands of the lab have in common (cmd-lab.c, cmd-lab-use.c). */

#include <stdbool.h>

struct args;
struct client_exec;
struct command;

enum {
	OPT_NAME = 1,
	OPT_NODES,
	OPT_CPUS,
	OPT_MEMORY,
	OPT_HUGEPAGES,
	OPT_NVME,
	OPT_SSH,
	OPT_SHARE,
	OPT_DISK,
	OPT_KERNEL,
	OPT_ACCEL,
	OPT_ON,
	OPT_JSON,
	OPT_NAMES,
	OPT_ALL,
	OPT_FRESH,
};

/* clang-format off */
#define NAME_OPTION \
	{.id = OPT_NAME, .name = "name", .letter = 'n', .arg = "LAB", \
	 .help = "Which lab, when there are several (default: $WISP_LAB, or lab)"}
/* clang-format on */

/* The lab's name: the option's value (or NULL), $WISP_LAB, "lab". */
const char *lab_chosen(const char *option);

/* Runs a program in a node and returns its exit code, or 126 after a message. */
int lab_exec(const struct command *cmd, const char *lab, const char *node,
	     const struct client_exec *exec, bool fresh);

/*
 * The node has this machine's files, so what leads to them means the same there: adds PATH, HOME,
 * LANG, and our own variables but those that tell of things that run here.
 */
void lab_exec_env(struct args *env);

#endif
