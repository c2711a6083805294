/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_INIT_H
#define WISP_AGENT_INIT_H

/* The agent as process 1 of a small image or a lab node. */

struct agent;
struct error;

/* What the kernel command line asks for; strings point into text. */
struct init_config {
	char *text;
	const char *root, *name, *hosts, *dns, *exec;
	const char *nets[16], *listens[8];
	unsigned net_count, listen_count;
};

/* Takes the wisp.* words out of a command line. Free with init_config_done(). */
int init_config_parse(const char *cmdline, struct init_config *ret, struct error *err);
void init_config_done(struct init_config *config);

/* Writes the first line to the console, as early as can be. */
void init_announce(void);

/*
 * Mounts, loads modules, makes the root the root, sets names, addresses and limits. Without
 * wisp.root the initrd stays the root. After a failure the machine is of no use.
 */
int init_boot(struct agent *agent, struct init_config *config, struct error *err);

/* Listens, writes the facts, tells the console, starts wisp.exec. */
int init_ready(struct agent *agent, const struct init_config *config, struct error *err);

#endif
