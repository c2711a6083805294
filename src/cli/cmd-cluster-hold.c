/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster attach, detach, stop: terminals of clusters, and their end. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cluster-lost.h"
#include "cli/cmd-cluster.h"
#include "cli/job-terminal.h"
#include "job/folder.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define LOOK_MS 50
#define STOP_NS (120ull * 1000000000)

enum { OPT_HOLD = 1, OPT_FROM_HERE, OPT_NO_WAIT };

/* -------- attach -------- */

static int run_attach(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *socket = NULL;
	struct job_terminal terminal = {0};
	struct option_parser parser;
	struct error err;
	unsigned flags;
	int code, r = cluster_parse(cmd, argc, argv, 1, 1, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	r = folder_socket(parser.argv[0], &socket, &err);
	if (!r) {
		terminal.name = parser.argv[0];
		terminal.socket = socket;
		terminal.hold = flags & 1u << OPT_HOLD;
		terminal.input = true;
		terminal.past = !(flags & 1u << OPT_FROM_HERE);
		terminal.quiet = true;
		r = job_terminal_run(&terminal, &code, &err);
	}
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : code;
}

const struct command cmd_cluster_attach = {
	.name = "cluster attach",
	.args = "NAME",
	.summary = "Be a terminal of a cluster: its program's output, and its input",
	.details = "The exit code is the cluster's. ^C leaves it alone; with --hold it is that of "
		   "wisp run.",
	.options = (const struct option_desc[]){{OPT_HOLD, "hold", 0, NULL,
						 "The cluster ends when this terminal is lost", 0},
						{OPT_FROM_HERE, "from-here", 0, NULL,
						 "Do not print what it has written before", 0},
						{0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_attach,
};

/* -------- detach -------- */

static int run_detach(const struct command *cmd, int argc, char **argv)
{
	return cluster_tell(cmd, argc, argv, "detach", cluster_ask);
}

const struct command cmd_cluster_detach = {
	.name = "cluster detach",
	.args = "NAME",
	.summary = "Let a cluster go on without its terminals",
	.complete = COMPLETE_CLUSTER,
	.run = run_detach,
};

/* -------- stop -------- */

static int wait_for_end(const char *name, const char *folder, struct error *err)
{
	uint64_t end = io_now_ns() + STOP_NS;

	while (folder_is_alive(folder)) {
		if (io_now_ns() > end)
			return error_set(err, -ETIMEDOUT,
					 "cluster %s has not ended after %llu s: see wisp cluster "
					 "logs --coordinator %s",
					 name, STOP_NS / 1000000000, name);
		poll(NULL, 0, LOOK_MS);
	}
	return 0;
}

/*
 * What nodes still have of it is ended. Where that cannot be, its record stays for whoever stops it
 * again or uses its name.
 */
static int forget(const char *name, const char *folder, struct error *err)
{
	int r = cluster_is_held(folder) ? cluster_end_lost(folder, err) : 0;

	if (!r)
		folder_sweep(folder);
	return r ? error_prefix(err, r, "what is left of cluster %s", name) : 0;
}

int cluster_stop(const char *name, bool wait, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	bool alive;
	int r = folder_path(name, &folder, err);

	if (!r)
		r = cluster_find(name, folder, err);
	alive = !r && folder_is_alive(folder);
	if (alive)
		r = cluster_ask(name, json_pack("{s:s}", "op", "stop"), NULL, err);
	if (alive && !r && wait)
		r = wait_for_end(name, folder, err);
	return !r && wait ? forget(name, folder, err) : r;
}

static int run_stop(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct error err;
	unsigned flags;
	int code = 0, r = cluster_parse(cmd, argc, argv, 1, -1, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	for (int i = 0; i < parser.argc; i++)
		if (cluster_stop(parser.argv[i], !(flags & 1u << OPT_NO_WAIT), &err))
			code = cli_fail(cmd, EXIT_FAILURE, &err);
	return code;
}

const struct command cmd_cluster_stop = {
	.name = "cluster stop",
	.args = "NAME...",
	.summary = "End clusters, and forget those that have ended",
	.options = (const struct option_desc[]){{OPT_NO_WAIT, "no-wait", 0, NULL,
						 "Do not wait until they have ended", 0},
						{0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_stop,
};
