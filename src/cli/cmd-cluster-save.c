/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster checkpoint, suspend, resume: whole clusters saved at one moment. */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd-cluster.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "mover/compress.h"

enum { OPT_TO = 1, OPT_LIVE, OPT_STOP, OPT_INCREMENTAL, OPT_FULL, OPT_COMPRESS, OPT_JSON };

struct options {
	json_t *request;
	bool json;
};

/* Relative to where we are: the nodes are somewhere else. */
static int set_folder(json_t *request, const char *value, struct error *err)
{
	char here[PATH_MAX];
	json_t *path;

	if (*value == '/')
		path = json_string(value);
	else if (!getcwd(here, sizeof(here)))
		return error_errno(err, -errno, "cannot find the current folder");
	else
		path = json_sprintf("%s/%s", here, value);
	return json_object_set_new(request, "folder", path)
		       ? error_set(err, -EINVAL, "--to %s is not UTF-8 text", value)
		       : 0;
}

static int set_compress(json_t *request, const char *value, struct error *err)
{
	enum compression kind;

	return compression_parse(value, &kind, err)
		       ?: json_object_set_new(request, "compress", json_string(value));
}

static int set(void *arg, int id, const char *value, struct error *err)
{
	struct options *o = arg;

	switch (id) {
	case OPT_TO:
		return set_folder(o->request, value, err);
	case OPT_LIVE:
	case OPT_STOP:
		return json_object_set_new(o->request, "mode",
					   json_string(id == OPT_LIVE ? "live" : "stop"));
	case OPT_INCREMENTAL:
	case OPT_FULL:
		return json_object_set_new(o->request, "incremental",
					   json_boolean(id == OPT_INCREMENTAL));
	case OPT_COMPRESS:
		return set_compress(o->request, value, err);
	default:
		o->json = true;
		return 0;
	}
}

static json_int_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static json_int_t longest_pause(const json_t *vms)
{
	json_int_t longest = 0;
	const json_t *vm;
	const char *name;

	json_object_foreach ((json_t *)vms, name, vm)
		if (number(vm, "pause_ns") > longest)
			longest = number(vm, "pause_ns");
	return longest;
}

static json_int_t first_cut(const json_t *vms)
{
	json_int_t first = INT64_MAX;
	const json_t *vm;
	const char *name;

	json_object_foreach ((json_t *)vms, name, vm)
		if (number(vm, "at") < first)
			first = number(vm, "at");
	return first;
}

/* What the VMs' kernels counted, or "-". */
static void print_again(const json_t *tcp)
{
	if (tcp)
		printf("%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " segments\n",
		       number(tcp, "retransmitted"), number(tcp, "sent"));
	else
		printf("-\n");
}

static void print_vms(const json_t *vms, const json_t *tcp)
{
	json_int_t first = first_cut(vms);
	const json_t *vm;
	const char *name;

	printf("%-20s %-20s %12s %12s  TCP SENT AGAIN", "VM", "NODE", "CUT", "PAUSE");
	if (tcp)
		printf(" IN %.1f s", (double)number(tcp, "ms") / 1e3);
	putchar('\n');
	json_object_foreach ((json_t *)vms, name, vm) {
		printf("%-20s %-20s %+9.1f ms ", name,
		       json_string_value(json_object_get(vm, "node")),
		       (double)(number(vm, "at") - first) / 1e6);
		if (json_object_get(vm, "pause_ns"))
			printf("%9.1f ms  ", (double)number(vm, "pause_ns") / 1e6);
		else
			printf("%12s  ", "-");
		print_again(json_object_get(json_object_get(tcp, "vms"), name));
	}
}

static void print_saved(const json_t *saved)
{
	const json_t *vms = json_object_get(saved, "vms");

	printf("checkpoint %" JSON_INTEGER_FORMAT " in %s: %.1f s, skew %.1f ms, longest pause "
	       "%.1f ms\n",
	       number(saved, "checkpoint"), json_string_value(json_object_get(saved, "folder")),
	       (double)number(saved, "ms") / 1e3, (double)number(saved, "skew_ns") / 1e6,
	       (double)longest_pause(vms) / 1e6);
	print_vms(vms, json_object_get(saved, "tcp"));
}

/* For people: what takes its time, and what does not. */
static void print_step(void *arg, const json_t *event)
{
	static const char *const texts[][2] = {{"begin", "its nodes get ready"},
					       {"cut", "its VMs are being paused"},
					       {"resume", "its VMs go on"},
					       {"commit", "what is left is being written"}};
	const char *step = json_string_value(json_object_get(event, "step")), *name = arg;

	for (size_t i = 0; step && i < ARRAY_SIZE(texts); i++)
		if (!strcmp(step, texts[i][0]))
			fprintf(stderr, "%s: %s\n", name, texts[i][1]);
}

static int ask_save(const char *name, json_t *request, json_t **ret, struct error *err)
{
	const struct cluster_watch watch = {isatty(STDERR_FILENO) ? print_step : NULL, (void *)name,
					    "checkpoint-abort"};

	return cluster_ask_watching(name, request, &watch, ret, err);
}

static int save(const struct command *cmd, int argc, char **argv, bool suspend)
{
	struct options o = {
		.request = json_pack("{s:s, s:b}", "op", "checkpoint", "suspend", suspend)};
	struct option_parser parser;
	json_t *saved = NULL;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = option_each(&parser, set, &o, &err);
	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "give the name of a cluster");
	if (r) {
		json_decref(o.request);
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	}
	r = ask_save(parser.argv[0], o.request, &saved, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (o.json)
		return cli_print_json(saved);
	print_saved(saved);
	json_decref(saved);
	return 0;
}

/* clang-format off */
#define SAVE_ROWS \
	{OPT_TO, "to", 0, "DIR", "Folder that all nodes of the cluster share (default: the environment's checkpoint.directory)", COMPLETE_DIR}, \
	{OPT_LIVE, "live", 0, NULL, "The VMs run while most is written (default: checkpoint.mode)", 0}, \
	{OPT_STOP, "stop", 0, NULL, "They are paused until all is written", 0}, \
	{OPT_INCREMENTAL, "incremental", 0, NULL, "Only what has changed since the last one (default: checkpoint.incremental)", 0}, \
	{OPT_FULL, "full", 0, NULL, "All memory", 0}, \
	{OPT_COMPRESS, "compress", 0, "HOW", "none, lz4 or zstd (default: checkpoint.compress)", 0}, \
	{OPT_JSON, "json", 0, NULL, "Print JSON", 0}
/* clang-format on */

static int run_checkpoint(const struct command *cmd, int argc, char **argv)
{
	return save(cmd, argc, argv, false);
}

const struct command cmd_cluster_checkpoint = {
	.name = "cluster checkpoint",
	.args = "NAME",
	.summary = "Save all VMs of a cluster at one moment, while it works",
	.details =
		"A checkpoint is whole or not there at all; whatever fails, the VMs run on, also "
		"when it is interrupted (^C), which gives it up. wisp cluster restart begins from "
		"it, wisp checkpoint shows, verifies and prunes.",
	.options = (const struct option_desc[]){SAVE_ROWS, {0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_checkpoint,
};

static int run_suspend(const struct command *cmd, int argc, char **argv)
{
	return save(cmd, argc, argv, true);
}

const struct command cmd_cluster_suspend = {
	.name = "cluster suspend",
	.args = "NAME",
	.summary = "Save all VMs of a cluster, and leave them paused",
	.details = "wisp cluster resume lets them go on; or stop it, and restart it later.",
	.options = (const struct option_desc[]){SAVE_ROWS, {0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_suspend,
};

static int run_resume(const struct command *cmd, int argc, char **argv)
{
	return cluster_tell(cmd, argc, argv, "resume", cluster_ask_long);
}

const struct command cmd_cluster_resume = {
	.name = "cluster resume",
	.args = "NAME",
	.summary = "Let the VMs of a suspended cluster go on",
	.complete = COMPLETE_CLUSTER,
	.run = run_resume,
};
