/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster migrate: VMs of a running cluster go to other nodes. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-cluster.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"

enum { OPT_TO = 1, OPT_BANDWIDTH, OPT_PARALLEL, OPT_DOWNTIME, OPT_JSON };

static int set_number(json_t *request, const char *name, const char *value, unsigned max,
		      struct error *err)
{
	unsigned number;
	int r = parse_uint(value, name, 1, max, &number, err);

	return r ? r : json_object_set_new(request, name, json_integer(number));
}

static int set(json_t *request, int id, const char *value, bool *json, struct error *err)
{
	uint64_t rate;
	int r;

	switch (id) {
	case OPT_TO:
		return json_object_set_new(request, "to", json_string(value))
			       ? error_set(err, -EINVAL, "--to %s is not UTF-8 text", value)
			       : 0;
	case OPT_BANDWIDTH:
		r = parse_size(value, 0, &rate, err);
		if (!r && (!rate || rate > INT64_MAX))
			r = error_set(err, -EINVAL, "it has to be more than 0, and less than 8E");
		return r ? error_prefix(err, r, "--bandwidth %s", value)
			 : json_object_set_new(request, "bandwidth",
					       json_integer((json_int_t)rate));
	case OPT_PARALLEL:
		return set_number(request, "parallel", value, 64, err);
	case OPT_DOWNTIME:
		return set_number(request, "max-downtime", value, 3600000, err);
	default:
		*json = true;
		return 0;
	}
}

static int add_names(json_t *request, const struct option_parser *parser, struct error *err)
{
	json_t *names;

	if (parser->argc < 1)
		return error_set(err, -EINVAL, "give the name of a cluster");
	if (parser->argc < 2)
		return 0;
	names = json_array();
	for (int i = 1; i < parser->argc; i++)
		if (json_array_append_new(names, json_string(parser->argv[i]))) {
			json_decref(names);
			return error_set(err, -EINVAL, "%s is not UTF-8 text", parser->argv[i]);
		}
	return json_object_set_new(request, "vms", names);
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static bool has_moved(const json_t *vm)
{
	return !strcmp(text(vm, "state"), "moved");
}

static bool all_have_moved(const json_t *answer)
{
	const json_t *vm;
	size_t i;

	json_array_foreach (json_object_get(answer, "vms"), i, vm)
		if (!has_moved(vm))
			return false;
	return true;
}

static double number(const json_t *report, const char *key)
{
	return (double)json_integer_value(json_object_get(report, key));
}

/* As each of them ends its way. */
static void print_move(void *arg, const json_t *vm)
{
	const json_t *report = json_object_get(vm, "report");
	const bool *json = arg;

	if (*json || strcmp(text(vm, "event"), "move"))
		return;
	if (!strcmp(text(vm, "state"), "goes"))
		fprintf(stderr, "%s: goes from %s to %s\n", text(vm, "vm"), text(vm, "from"),
			text(vm, "to"));
	else if (!has_moved(vm))
		fprintf(stderr, "wisp cluster migrate: %s is still at %s, not at %s: %s\n",
			text(vm, "vm"), text(vm, "from"), text(vm, "to"), text(vm, "error"));
	else if (!json_object_get(report, "downtime_ns"))
		printf("%s: runs at %s\n", text(vm, "vm"), text(vm, "to"));
	else
		printf("%s: runs at %s; %.1f s, %.0f rounds, %.1f MiB sent, paused for %.1f ms\n",
		       text(vm, "vm"), text(vm, "to"), number(report, "ns") / 1e9,
		       number(report, "round_count"), number(report, "bytes") / (1 << 20),
		       number(report, "downtime_ns") / 1e6);
	fflush(stdout);
}

static int run_migrate(const struct command *cmd, int argc, char **argv)
{
	json_t *request = json_pack("{s:s}", "op", "migrate"), *answer = NULL;
	struct option_parser parser;
	const char *value;
	struct error err;
	bool json = false, moved;
	int id, r = 0;

	option_start(&parser, cmd, argc, argv);
	while (!r && (id = option_next(&parser, &value, &err)) > 0)
		r = id == OPTION_HELP ? id : set(request, id, value, &json, &err);
	r = r ? r : id;
	if (!r)
		r = add_names(request, &parser, &err);
	if (r) {
		json_decref(request);
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	}
	r = cluster_ask_watching(parser.argv[0], request,
				 &(struct cluster_watch){print_move, &json, "migrate-abort"},
				 &answer, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	moved = all_have_moved(answer);
	if (json)
		r = cli_print_json(answer);
	else
		json_decref(answer);
	return r ? r : moved ? 0 : EXIT_FAILURE;
}

const struct command cmd_cluster_migrate = {
	.name = "cluster migrate",
	.args = "NAME [VM...]",
	.summary = "Move VMs of a running cluster to other nodes of it; its program goes on",
	.details = "Without VMs: all that are at nodes that drain. A VM that cannot be moved stays "
		   "where it is; exit code 1 then. ^C gives it up: all that still can stay.",
	.options =
		(const struct option_desc[]){
			{OPT_TO, "to", 0, "NODE", "Where they go (default: where there is room)",
			 0},
			{OPT_BANDWIDTH, "bandwidth", 0, "RATE",
			 "Bytes a second (K, M, G) of all together (default: no limit)", 0},
			{OPT_PARALLEL, "parallel", 0, "N", "So many at once (default: 4)", 0},
			{OPT_DOWNTIME, "max-downtime", 0, "MS",
			 "Pause to aim for, in milliseconds (default: 300)", 0},
			{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
			{0}},
	.complete = COMPLETE_CLUSTER,
	.run = run_migrate,
};
