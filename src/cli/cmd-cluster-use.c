/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster exec, shell: programs in VMs of clusters. */

#include <errno.h>

#include "agent/client.h"
#include "cli/cluster-agent.h"
#include "cli/commands.h"
#include "cli/exec-options.h"
#include "lib/cleanup.h"
#include "lib/error.h"

/* 0, OPTION_HELP, or -errno. */
static int parse(struct option_parser *parser, struct exec_options *o, struct error *err)
{
	const char *value;
	int id, r = 0;

	while (!r && (id = option_next(parser, &value, err)) > 0)
		r = id == OPTION_HELP ? id : exec_option(o, id, value, err);
	if (!r && !id && !parser->argc)
		return error_set(err, -EINVAL, "give the name of a cluster, or of a VM of one");
	return r ? r : id;
}

static int exec_in(const struct command *cmd, const char *name, const struct client_exec *exec)
{
	struct error err;
	CLEANUP_CLOSE int fd = cluster_agent(name, &err);
	int code, r = fd < 0 ? fd : client_exec(fd, exec, &code, &err);

	return r < 0 ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : code;
}

static int run(const struct command *cmd, int argc, char **argv)
{
	struct exec_options o = {.tty = -1};
	struct option_parser parser;
	struct client_exec exec;
	struct error err;
	int code, r;

	option_start(&parser, cmd, argc, argv);
	r = parse(&parser, &o, &err);
	if (!r && !cmd->stops_at_args && parser.argc > 1)
		r = error_set(&err, -EINVAL, "a shell takes no program (wisp cluster exec does)");
	if (r) {
		code = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	} else {
		exec = exec_prepare(&o, parser.argc, parser.argv);
		code = exec_in(cmd, parser.argv[0], &exec);
	}
	args_done(&o.env);
	return code;
}

static const struct option_desc options[] = {EXEC_OPTION_ROWS("guest", "the user's home", ""), {0}};

const struct command cmd_cluster_exec = {
	.name = "cluster exec",
	.args = "NAME [--] [PROGRAM [ARGUMENT...]]",
	.summary = "Run a program in a VM of a cluster; without one, a shell",
	.details =
		"NAME is that of a VM (lu-1), or of a cluster: its first VM. The program's input, "
		"output, errors and exit code are those of this command (128 + N when signal N "
		"ended it); 126 when it could not be run. Signals are passed on.",
	.options = options,
	.stops_at_args = true,
	.complete = COMPLETE_CLUSTER,
	.run = run,
};

const struct command cmd_cluster_shell = {
	.name = "cluster shell",
	.args = "NAME",
	.summary = "Open a login shell in a VM of a cluster",
	.options = options,
	.complete = COMPLETE_CLUSTER,
	.run = run,
};
