/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster list, show, logs: what there is to know of clusters. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-cluster.h"
#include "cli/job-terminal.h"
#include "job/folder.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "net/state.h"
#include "node/ask.h"

enum { OPT_JSON = 1, OPT_NAMES, OPT_FOLLOW, OPT_STDERR, OPT_COORDINATOR };

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* -------- what is known of one -------- */

/* As its coordinator has it; when that is gone, as it wrote it down. */
static json_t *describe(const char *name)
{
	CLEANUP_FREE char *folder = NULL;
	json_t *state = NULL;
	const char *is;

	if (folder_path(name, &folder, NULL))
		return NULL;
	if (folder_is_alive(folder)) {
		if (cluster_ask(name, json_pack("{s:s}", "op", "status"), &state, NULL))
			state = folder_state(folder);
		is = json_object_get(state, "end") ? "ending" : text_of(state, "stage");
	} else {
		state = folder_state(folder);
		is = json_object_get(state, "end") ? "ended" : "lost";
	}
	if (!state)
		state = json_pack("{s:s}", "name", name);
	json_object_set_new(state, "state", json_string(*is ? is : "begins"));
	return state;
}

/* -------- list -------- */

static void print_line(const json_t *state)
{
	const json_t *vms = json_object_get(state, "vms"), *end = json_object_get(state, "end");
	const json_t *word;
	size_t i;

	printf("%-20s %-8s %3zu VMs  ", text_of(state, "name"), text_of(state, "state"),
	       json_array_size(vms));
	if (end)
		printf("exit code %" JSON_INTEGER_FORMAT "%s%s",
		       json_integer_value(json_object_get(end, "code")),
		       *text_of(end, "why") ? ": " : "", text_of(end, "why"));
	else
		json_array_foreach (json_object_get(state, "program"), i, word)
			printf("%s%s", i ? " " : "", json_string_value(word));
	putchar('\n');
}

static int list(unsigned flags, struct error *err)
{
	json_t *all = json_array();
	char **names = NULL;
	int r = folder_names(&names, err);

	for (char **name = names; !r && *name; name++) {
		json_t *state = describe(*name);

		if (flags & 1u << OPT_NAMES)
			puts(*name);
		else if (flags & 1u << OPT_JSON)
			json_array_append(all, state);
		else
			print_line(state);
		json_decref(state);
	}
	state_list_free(names);
	if (!r && flags & 1u << OPT_JSON)
		return cli_print_json(all);
	json_decref(all);
	return r;
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct error err;
	unsigned flags;
	int r = cluster_parse(cmd, argc, argv, 0, 0, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	r = list(flags, &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_cluster_list = {
	.name = "cluster list",
	.args = "",
	.summary = "List your virtual clusters on this machine",
	.details =
		"One that is lost (its coordinator has died, and its nodes end it), or ended while "
		"nobody held it or one of its nodes was lost, is shown until its name is used "
		"again or it is stopped.",
	.options =
		(const struct option_desc[]){{OPT_NAMES, "names", 0, NULL, "Print names alone", 0},
					     {OPT_JSON, "json", 0, NULL, "Print JSON", 0},
					     {0}},
	.run = run_list,
};

/* -------- show -------- */

static void print_stages(const json_t *state)
{
	const json_t *stage;
	size_t i;

	printf("stages  ");
	json_array_foreach (json_object_get(state, "stages"), i, stage)
		printf(" %s %" JSON_INTEGER_FORMAT " ms,", text_of(stage, "stage"),
		       json_integer_value(json_object_get(stage, "ms")));
	printf(" %s\n", text_of(state, "state"));
}

static void print_cluster(const json_t *state)
{
	const json_t *vm, *node;
	size_t i;

	print_line(state);
	printf("id       %s\nimage    %s\n", text_of(state, "id"),
	       text_of(json_object_get(state, "image"), "name"));
	print_stages(state);
	json_array_foreach (json_object_get(state, "vms"), i, vm)
		printf("%-20s %-15s %-12s %s\n", text_of(vm, "name"), text_of(vm, "address"),
		       text_of(vm, "node"), text_of(vm, "state"));
	json_array_foreach (json_object_get(state, "nodes"), i, node)
		if (*text_of(node, "gone"))
			printf("node %s is not there: %s\n", text_of(node, "name"),
			       text_of(node, "gone"));
}

static int run_show(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *folder = NULL;
	struct option_parser parser;
	json_t *state;
	struct error err;
	unsigned flags;
	int r = cluster_parse(cmd, argc, argv, 1, 1, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	if (folder_path(parser.argv[0], &folder, &err) ||
	    cluster_find(parser.argv[0], folder, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	state = describe(parser.argv[0]);
	if (flags & 1u << OPT_JSON)
		return cli_print_json(state);
	print_cluster(state);
	json_decref(state);
	return 0;
}

const struct command cmd_cluster_show = {
	.name = "cluster show",
	.args = "NAME",
	.summary = "Show a virtual cluster: its stages, VMs, nodes and end",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_show,
};

/* -------- logs -------- */

/* What the file has; a program's output may begin with a hole. */
static int print_file(const char *folder, const char *file, struct error *err)
{
	CLEANUP_FREE char *path = folder_file(folder, file);
	CLEANUP_FILE FILE *in = path ? fopen(path, "re") : NULL;
	off_t start = in ? lseek(fileno(in), 0, SEEK_DATA) : 0;
	char piece[65536];
	size_t n;

	if (!in)
		return error_errno(err, -errno, "cannot read %s", path ? path : file);
	if (start > 0)
		fseeko(in, start, SEEK_SET);
	while ((n = fread(piece, 1, sizeof(piece), in)))
		if (fwrite(piece, 1, n, stdout) < n)
			return error_errno(err, -errno, "cannot write");
	return 0;
}

static int follow(const char *name, struct error *err)
{
	CLEANUP_FREE char *socket = NULL;
	struct job_terminal terminal = {.name = name, .past = true, .quiet = true};
	int code, r = folder_socket(name, &socket, err);

	terminal.socket = socket;
	return r ? r : job_terminal_run(&terminal, &code, err);
}

static int run_logs(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *folder = NULL;
	struct option_parser parser;
	struct error err;
	unsigned flags;
	int r = cluster_parse(cmd, argc, argv, 1, 1, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	r = folder_path(parser.argv[0], &folder, &err);
	if (!r)
		r = cluster_find(parser.argv[0], folder, &err);
	if (!r && flags & 1u << OPT_FOLLOW && folder_is_alive(folder))
		r = follow(parser.argv[0], &err);
	else if (!r)
		r = print_file(folder,
			       flags & 1u << OPT_COORDINATOR ? FOLDER_LOG
			       : flags & 1u << OPT_STDERR    ? FOLDER_ERR
							     : FOLDER_OUT,
			       &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_cluster_logs = {
	.name = "cluster logs",
	.args = "NAME",
	.summary = "Print what a cluster's program has written",
	.details = "Of a long output the last 64 MiB are kept.",
	.options = (const struct option_desc[]){{OPT_FOLLOW, "follow", 'f', NULL,
						 "Go on until it ends, with its errors", 0},
						{OPT_STDERR, "stderr", 0, NULL,
						 "What it wrote to standard error", 0},
						{OPT_COORDINATOR, "coordinator", 0, NULL,
						 "What the cluster's coordinator has noted", 0},
						{0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_logs,
};
