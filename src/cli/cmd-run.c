/* SPDX-License-Identifier: Apache-2.0 */
/* wisp run: a cluster for a program, and both gone when it has ended. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/job-start.h"
#include "cli/run-spec.h"
#include "cli/run-start.h"
#include "job/nodelist.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"

enum {
	OPT_VMS = ENV_OPT_OWN,
	OPT_NODES,
	OPT_HOSTS,
	OPT_NAME,
	OPT_IMAGE,
	OPT_WITH,
	OPT_RANKS,
	OPT_RANKS_PER_VM,
	OPT_PER_NODE,
	OPT_ENV,
	OPT_LABEL,
	OPT_DETACH,
	OPT_READY,
	OPT_SOCKET,
	OPT_LAUNCHER,
	OPT_QUIET,
};

/* -------- options -------- */

static int ask_number(struct run_options *o, const char *field, const char *value,
		      struct error *err)
{
	char option[32];
	unsigned n;
	int r;

	snprintf(option, sizeof(option), "--%s", field);
	r = parse_uint(value, option, 1, 1000000000, &n, err);

	if (!r)
		json_object_set_new(o->asked, field, json_integer(n));
	return r;
}

static int add_variable(struct run_options *o, const char *text, struct error *err)
{
	size_t n = strcspn(text, "=");

	if (!n || !text[n])
		return error_set(err, -EINVAL, "--env %s is not NAME=VALUE", text);
	return json_object_setn_new(o->variables, text, n, json_string(text + n + 1))
		       ? error_set(err, -EINVAL, "--env %s is not UTF-8 text", text)
		       : 0;
}

/* Facts and waivers go to the daemons as they are, beside being met here. */
static int request_option(struct run_options *o, int id, const char *value, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	const char *equals = value ? strchr(value, '=') : NULL;
	int r = env_request_option(&o->request, id, value, err);

	if (r)
		return r;
	if (id == ENV_OPT_FACT && equals)
		json_object_setn_new(o->facts, value, (size_t)(equals - value),
				     json_string(equals + 1));
	if (id == ENV_OPT_WAIVER) {
		r = (int)io_read_file(value, 65536, &text, err);
		if (r >= 0)
			json_array_append_new(o->waivers, json_string(text));
	}
	return r < 0 ? r : 0;
}

static int set(void *arg, int id, const char *value, struct error *err)
{
	struct run_options *o = arg;

	switch (id) {
	case OPT_VMS:
		return ask_number(o, "vms", value, err);
	case OPT_RANKS:
		return ask_number(o, "ranks", value, err);
	case OPT_RANKS_PER_VM:
		return ask_number(o, "ranks-per-vm", value, err);
	case OPT_PER_NODE:
		return ask_number(o, "vms-per-node", value, err);
	case OPT_NODES:
		return nodelist_add(o->nodes, value, err);
	case OPT_HOSTS:
		return nodelist_add_file(o->nodes, value, err);
	case OPT_NAME:
		o->name = value;
		return paths_check_name(value, "cluster", err);
	case OPT_IMAGE:
		o->image = value;
		return 0;
	case OPT_WITH:
		args_add(&o->documents, "%s", value);
		return 0;
	case OPT_ENV:
		return add_variable(o, value, err);
	case OPT_LABEL:
		o->label = true;
		return 0;
	case OPT_DETACH:
		o->detach = true;
		return 0;
	case OPT_READY:
		return parse_uint(value, "--ready", 1, 86399, &o->ready_s, err);
	case OPT_SOCKET:
		o->socket = value;
		return 0;
	case OPT_LAUNCHER:
		o->launcher = value;
		return 0;
	case OPT_QUIET:
		o->quiet = true;
		return 0;
	default:
		return request_option(o, id, value, err);
	}
}

/* 0, OPTION_HELP, or -errno. */
static int parse(struct option_parser *parser, struct run_options *o, struct error *err)
{
	int r = option_each(parser, set, o, err);

	return r || parser->argc ? r : error_set(err, -EINVAL, "give an environment");
}

/* -------- the cluster -------- */

static int run(const struct command *cmd, struct run_options *o, int argc, char **argv)
{
	const struct job_daemon wanted = {o->socket, o->launcher, !json_array_size(o->nodes)};
	CLEANUP_FREE char *socket = NULL;
	const struct run_view view = {
		.detach = o->detach, .quiet = o->quiet, .json = o->request.json};
	json_t *facts = NULL, *spec = NULL;
	struct error err;
	int code, r = job_find_daemon(&wanted, &socket, &facts, &err);

	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	code = run_spec_make(cmd, o, facts, argc, argv, &spec);
	json_decref(facts);
	if (code)
		return code;
	json_object_set_new(spec, "socket", json_string(socket));
	code = run_start(cmd, spec, &view);
	json_decref(spec);
	return code;
}

static int run_run(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct run_options o;
	struct error err;
	int code, r = run_options_init(&o, &err);

	option_start(&parser, cmd, argc, argv);
	if (!r)
		r = parse(&parser, &o, &err);
	if (r)
		code = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	else
		code = run(cmd, &o, parser.argc, parser.argv);
	run_options_done(&o);
	return code;
}

static const struct option_desc run_options_rows[] = {
	{OPT_VMS, "vms", 'n', "N", "How many virtual machines (default: as the environment says)",
	 0},
	{OPT_NODES, "nodes", 0, "LIST",
	 "Nodes, NAME or NAME@HOST[:PORT] with commas, also n[1-4] (default: this machine)", 0},
	{OPT_HOSTS, "hosts", 0, "FILE", "A file that names them, one or several in a line",
	 COMPLETE_FILE},
	{OPT_PER_NODE, "vms-per-node", 0, "N", "How many of the VMs may be on one node", 0},
	{OPT_NAME, "name", 0, "NAME",
	 "What the cluster is called (default: the environment's name, or its file's)", 0},
	{OPT_IMAGE, "image", 0, "NAME",
	 "Start this image in place of one that is built of the environment", COMPLETE_IMAGE},
	{OPT_WITH, "with", 'f', "FILE", "A further document of the environment (may be repeated)",
	 COMPLETE_FILE},
	{OPT_RANKS, "ranks", 0, "N", "How many MPI processes", 0},
	{OPT_RANKS_PER_VM, "ranks-per-vm", 0, "N", "At most how many of them are in one VM", 0},
	{OPT_ENV, "env", 'e', "NAME=VALUE", "A variable of the program (may be repeated)", 0},
	{OPT_LABEL, "label", 'l', NULL, "Put before each line which rank, or VM, has written it",
	 0},
	{OPT_DETACH, "detach", 'd', NULL,
	 "Leave when the program has been started; the cluster goes on", 0},
	{OPT_READY, "ready", 0, "SECONDS", "How long VMs may take to start (default 300)", 0},
	{OPT_SOCKET, "socket", 0, "PATH",
	 "Of this node's daemon (default: root's where it runs, else yours)", COMPLETE_FILE},
	JOB_LAUNCHER_ROW(OPT_LAUNCHER),
	{OPT_QUIET, "quiet", 'q', NULL, "Do not tell the stages", 0},
	ENV_OPTIONS,
	{0}};

const struct command cmd_run = {
	.name = "run",
	.args = "ENV [--] [PROGRAM [ARGUMENT...]]",
	.summary = "Run a program in a virtual cluster",
	.details =
		"The cluster is made as the environment ENV says, the program (default: that of "
		"the environment) runs in its first VM, or over all of them by mpirun, and the "
		"cluster goes when the program ends. Without any program it is there until it is "
		"ended.\n"
		"The exit code is the program's (128 + N when signal N ended it); 126 and 127 when "
		"it could not be started, 124 when the walltime was over, 1 when the cluster could "
		"not be made.\n"
		"The first ^C is passed on to the program, a second within 3 s ends the cluster. "
		"So "
		"does a terminal that is lost, unless it was detached (--detach, or wisp cluster "
		"detach from another one). With --detach ^C ends a cluster that is still being "
		"started. --json prints stages as JSON on standard error.",
	.options = run_options_rows,
	.stops_at_args = true,
	.complete = COMPLETE_FILE,
	.run = run_run,
};
