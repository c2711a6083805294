/* SPDX-License-Identifier: Apache-2.0 */
/* wisp lab exec, status, down and net: commands about labs that run. */

#include "cli/cmd-lab.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/client.h"
#include "cli/commands.h"
#include "cli/exec-options.h"
#include "lab/lab.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "net/client.h"
#include "net/state.h"

#define CONNECT_TIMEOUT_MS 5000

const char *lab_chosen(const char *option)
{
	const char *env = getenv("WISP_LAB");

	return option ? option : env && *env ? env : "lab";
}

int lab_exec(const struct command *cmd, const char *lab, const char *node,
	     const struct client_exec *exec, bool fresh)
{
	CLEANUP_CLOSE int fd = -1;
	struct error err, why;
	int code, r = lab_connect(lab, node, CONNECT_TIMEOUT_MS, &fd, &err);

	if (!r)
		r = lab_freshen(lab, node, exec->cwd, exec->argv, fresh, &err);
	if (!r)
		r = client_exec(fd, exec, &code, &err);
	/* A connection that breaks says less than the node's end. */
	if (r < 0 && lab_check_node(lab, node, &why))
		err = why;
	return r ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : code;
}

void lab_exec_env(struct args *env)
{
	for (char **e = environ; *e; e++)
		if (!strncmp(*e, "PATH=", 5) || !strncmp(*e, "HOME=", 5) ||
		    !strncmp(*e, "LANG=", 5) ||
		    (!strncmp(*e, "WISP_", 5) && strncmp(*e, "WISP_LAB=", 9) &&
		     strncmp(*e, "WISP_RUN=", 9)))
			args_add(env, "%s", *e);
}

struct lab_exec_options {
	struct exec_options exec;
	const char *lab;
	bool fresh;
};

/* 0, OPTION_HELP, or -errno. */
static int parse_exec(struct option_parser *parser, struct lab_exec_options *o, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		if (r == OPT_NAME)
			o->lab = value;
		else if (r == OPT_FRESH)
			o->fresh = true;
		else
			r = exec_option(&o->exec, r, value, err);
		if (r < 0)
			return r;
	}
	if (!r && !parser->argc)
		r = error_set(err, -EINVAL, "which node? wisp lab exec NODE [--] PROGRAM ...");
	return r;
}

static int run_exec(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *cwd = getcwd(NULL, 0);
	struct lab_exec_options o = {.lab = lab_chosen(NULL), .exec = {.cwd = cwd, .tty = -1}};
	struct option_parser parser;
	struct error err;
	int r;

	lab_exec_env(&o.exec.env);
	option_start(&parser, cmd, argc, argv);
	r = parse_exec(&parser, &o, &err);
	if (!r) {
		struct client_exec exec = exec_prepare(&o.exec, parser.argc, parser.argv);

		r = lab_exec(cmd, o.lab, parser.argv[0], &exec, o.fresh);
	} else {
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	}
	args_done(&o.exec.env);
	return r;
}

static const struct option_desc exec_options[] = {
	NAME_OPTION,
	EXEC_OPTION_ROWS("node", "the current one, which the node has as well",
			 "; PATH, HOME, LANG and WISP_* are passed on"),
	{.id = OPT_FRESH,
	 .name = "fresh",
	 .help = "Make the node look at all files of this machine again"},
	{0}};

const struct command cmd_lab_exec = {
	.name = "lab exec",
	.args = "NODE [--] [PROGRAM [ARGUMENT...]]",
	.summary = "Run a program in a node; without one, a shell",
	.details =
		"The program's input, output, errors and exit code are those of this command "
		"(128 + N when signal N ended it); 126 when it could not be run. Signals are "
		"passed on.\n\nA node remembers the files it has seen. It looks again "
		"when the program, a file among its arguments, Wisp's own programs or the images "
		"have changed here since; --fresh makes it look again in any case.",
	.options = exec_options,
	.stops_at_args = true,
	.complete = COMPLETE_NODE,
	.run = run_exec,
};

struct about_options {
	const char *lab; /* NULL: not said */
	bool json, names, all;
};

/* 0, OPTION_HELP, or -errno. */
static int parse_about(struct option_parser *parser, struct about_options *o, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		if (r == OPT_NAME)
			o->lab = value;
		o->json |= r == OPT_JSON;
		o->names |= r == OPT_NAMES;
		o->all |= r == OPT_ALL;
	}
	if (!r && parser->argc && !parser->cmd->stops_at_args)
		r = error_set(err, -EINVAL, "unexpected argument %s", parser->argv[0]);
	return r;
}

/* Calls fn for the lab that was named, or for all there are, dead or alive; adds up results. */
static int each_lab(const char *only, int (*fn)(const char *name, void *arg, struct error *err),
		    void *arg, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	char **names = NULL;
	int r = 0, sum = 0;

	if (only)
		return fn(only, arg, err);
	r = paths_run("lab", NULL, &folder, err);
	if (!r)
		r = state_list(folder, &names, err);
	for (char **name = names; !r && *name; name++) {
		int n = fn(*name, arg, err);

		if (n < 0)
			r = n;
		else
			sum += n;
	}
	state_list_free(names);
	return r ? r : sum;
}

static json_t *describe_lab(const char *name, const struct lab_status *s)
{
	json_t *nodes = json_array();

	for (unsigned i = 0; i < s->nodes; i++)
		json_array_append_new(nodes, json_pack("{ss, ss, sb, ss}", "name", s->node[i].name,
						       "address", s->node[i].address, "running",
						       (int)s->node[i].running, "reason",
						       s->node[i].reason));
	return json_pack("{ss, sb, ss, si, sI, so}", "name", name, "running", 1, "accel", s->accel,
			 "cpus", (int)s->cpus, "memory", (json_int_t)s->memory, "nodes", nodes);
}

static void print_lab(const char *name, const struct lab_status *s)
{
	char memory[32];

	printf("lab %s: each node %u CPU%s, %s, %s\n", name, s->cpus, s->cpus > 1 ? "s" : "",
	       format_size(s->memory, memory, sizeof(memory)),
	       strcmp(s->accel, "kvm") ? "emulated" : "hardware virtualization");
	for (unsigned i = 0; i < s->nodes; i++)
		printf("  %-8s %-12s %s\n", s->node[i].name, s->node[i].address,
		       s->node[i].running ? "running" : s->node[i].reason);
}

struct status_output {
	bool names;
	json_t *json; /* array, or NULL */
};

/* A keeper that was killed leaves a directory; it is nothing that runs. */
static int show_crashed(const char *name, const struct status_output *out)
{
	if (out->json)
		json_array_append_new(
			out->json, json_pack("{ss, sb, s[]}", "name", name, "running", 0, "nodes"));
	else if (!out->names)
		printf("lab %s: crashed; wisp lab down --name %s sweeps up\n", name, name);
	return 0;
}

static int show_status(const char *name, void *arg, struct error *err)
{
	const struct status_output *out = arg;
	struct lab_status status;
	int r = lab_status(name, &status, err);

	if (r == -ENOENT && lab_crashed(name))
		return show_crashed(name, out);
	if (r)
		return r;
	if (out->json)
		json_array_append_new(out->json, describe_lab(name, &status));
	for (unsigned i = 0; out->names && i < status.nodes; i++)
		puts(status.node[i].name);
	if (!out->names && !out->json)
		print_lab(name, &status);
	return 1;
}

static int run_status(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	struct status_output out = {0};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	out.names = o.names;
	out.json = o.json ? json_array() : NULL;
	r = each_lab(o.names && !o.lab ? lab_chosen(NULL) : o.lab, show_status, &out, &err);
	if (r >= 0 && out.json) {
		json_dumpf(out.json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(out.json);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static const struct option_desc status_options[] = {
	NAME_OPTION,
	{.id = OPT_JSON, .name = "json", .help = "Print a JSON array of labs"},
	{.id = OPT_NAMES, .name = "names", .help = "Print the names of the nodes alone"},
	{0}};

const struct command cmd_lab_status = {
	.name = "lab status",
	.args = "",
	.summary = "Show the labs and which of their nodes run",
	.details =
		"Without --name all labs of this user, perhaps none. Exits with 1 when the named "
		"lab does not exist.",
	.options = status_options,
	.run = run_status,
};

static int stop_one(const char *name, void *arg, struct error *err)
{
	int r = lab_stop(name, err);

	if (r >= 0)
		fprintf(stderr, "wisp lab down: lab %s %s\n", name, r ? "is gone" : "does not run");
	return r;
}

static int run_down(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	r = each_lab(o.all ? NULL : lab_chosen(o.lab), stop_one, NULL, &err);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static const struct option_desc down_options[] = {
	NAME_OPTION,
	{.id = OPT_ALL, .name = "all", .letter = 'a', .help = "End all labs of this user"},
	{0}};

const struct command cmd_lab_down = {
	.name = "lab down",
	.args = "",
	.summary = "End a lab and sweep up what a crashed one left",
	.details = "Exits with 0 also when there was no lab.",
	.options = down_options,
	.run = run_down,
};

static int run_net(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_CLOSE int control = -1;
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (!r && !parser.argc)
		r = error_set(&err, -EINVAL, "no program to run: wisp lab net -- ip address");
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	argv[parser.argc] = NULL;
	r = paths_run("lab", lab_chosen(o.lab), &dir, &err);
	if (!r)
		r = control = net_connect(dir, &err);
	if (r >= 0)
		r = net_run(control, parser.argv, &err);
	return r < 0 ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : r;
}

static const struct option_desc net_options[] = {NAME_OPTION, {0}};

const struct command cmd_lab_net = {
	.name = "lab net",
	.args = "[--] PROGRAM [ARGUMENT...]",
	.summary = "Run a program of this machine on a lab's private network",
	.details = "It sees the bridge (10.77.0.1) and reaches the nodes, and nothing else: for "
		   "tcpdump, iperf3 and the like. Its exit code is that of the command.",
	.options = net_options,
	.stops_at_args = true,
	.run = run_net,
};
