/* SPDX-License-Identifier: Apache-2.0 */
/* wisp node, wisp account: what the daemon of this node says, and is told by its operators. */

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "env/waiver.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "node/ask.h"

enum { OPT_SOCKET = 1, OPT_JSON, OPT_ALL, OPT_USER, OPT_SINCE, OPT_UNTIL, OPT_CLUSTER };

#define SOCKET_ROW                                                            \
	{                                                                     \
		OPT_SOCKET, "socket", 0, "PATH",                              \
			"Of the daemon (default: root's where it runs, else " \
			"yours)",                                             \
			COMPLETE_FILE                                         \
	}
#define JSON_ROW                                           \
	{                                                  \
		OPT_JSON, "json", 0, NULL, "Print JSON", 0 \
	}

struct options {
	const char *socket, *cluster;
	bool json, all, has_user;
	uid_t user;
	int64_t since, until;
};

static int set_user(struct options *o, const char *name, struct error *err)
{
	const struct passwd *user = getpwnam(name);

	if (!user)
		return error_set(err, -EINVAL, "--user %s: there is no such user", name);
	o->user = user->pw_uid;
	o->has_user = true;
	return 0;
}

static int set(void *arg, int id, const char *value, struct error *err)
{
	struct options *o = arg;

	switch (id) {
	case OPT_SOCKET:
		o->socket = value;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_ALL:
		o->all = true;
		return 0;
	case OPT_CLUSTER:
		o->cluster = value;
		return 0;
	case OPT_USER:
		return set_user(o, value, err);
	default:
		return waiver_time(value, id == OPT_SINCE ? &o->since : &o->until, err);
	}
}

/* 0, OPTION_HELP, or -errno. */
static int parse(const struct command *cmd, struct option_parser *parser, int argc, char **argv,
		 int most, struct options *o, struct error *err)
{
	int r;

	option_start(parser, cmd, argc, argv);
	r = option_each(parser, set, o, err);
	if (r)
		return r;
	if (parser->argc > most)
		return error_set(err, -EINVAL, "unexpected argument %s", parser->argv[most]);
	return 0;
}

static int usage(const struct command *cmd, int r, const struct error *err)
{
	return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, err);
}

/* Asks one thing. The request is taken. */
static int ask_once(const struct options *o, json_t *request, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *found = NULL;
	struct ask *daemon = NULL;
	int r = o->socket ? 0 : ask_socket(&found, err);

	if (!r)
		r = ask_open(o->socket ? o->socket : found, &daemon, err);
	if (!r)
		r = ask(daemon, request, ret, err);
	if (r && ret) {
		json_decref(*ret);
		*ret = NULL;
	}
	ask_close(daemon);
	json_decref(request);
	return r;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *state_of(const json_t *facts)
{
	return json_is_string(json_object_get(facts, "draining"))
		       ? "draining"
		       : text_of(json_object_get(facts, "health"), "state");
}

/* -------- list and show -------- */

static int facts(const struct options *o, json_t **ret, struct error *err)
{
	return ask_once(o, json_pack("{s:s}", "op", "facts"), ret, err);
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *node = NULL;
	const json_t *have;
	struct error err;
	char size[32];
	int r = parse(cmd, &parser, argc, argv, 0, &o, &err);

	if (r)
		return usage(cmd, r, &err);
	r = facts(&o, &node, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (o.json)
		return cli_print_json(json_pack("[o]", node));
	have = json_object_get(node, "free");
	printf("%-16s %-8s %-9s %lld of %lld threads free, %s free\n", text_of(node, "name"),
	       text_of(node, "type"), state_of(node), number_of(have, "threads"),
	       number_of(json_object_get(node, "topology"), "threads"),
	       format_size((uint64_t)number_of(have, "memory"), size, sizeof(size)));
	json_decref(node);
	return 0;
}

const struct command cmd_node_list = {
	.name = "node list",
	.args = "",
	.summary = "List the node of the daemon, and what is free there",
	.options = (const struct option_desc[]){SOCKET_ROW, JSON_ROW, {0}},
	.run = run_list,
};

static void print_health(const json_t *health)
{
	const json_t *fact;
	size_t i;

	json_array_foreach (json_object_get(health, "facts"), i, fact)
		if (strcmp(text_of(fact, "state"), "ok"))
			printf("%-9s %s %s: %s\n", text_of(fact, "state"), text_of(fact, "name"),
			       text_of(fact, "about"), text_of(fact, "text"));
}

static void print_node(const json_t *node)
{
	const json_t *t = json_object_get(node, "topology"), *have = json_object_get(node, "free");
	const json_t *label;
	char size[32];
	size_t i;

	printf("name      %s\ntype      %s\nlabels   ", text_of(node, "name"),
	       text_of(node, "type"));
	json_array_foreach (json_object_get(node, "labels"), i, label)
		printf(" %s", json_string_value(label));
	printf("\nstate     %s%s%s\n", state_of(node), *text_of(node, "draining") ? ": " : "",
	       text_of(node, "draining"));
	printf("has       %lld sockets, %lld cores, %lld threads, %zu NUMA nodes\n",
	       number_of(t, "sockets"), number_of(t, "cores"), number_of(t, "threads"),
	       json_array_size(json_object_get(t, "nodes")));
	printf("free      CPUs %s, %s\npolicy    %.12s\nversion   %s\n", text_of(have, "cpus"),
	       format_size((uint64_t)number_of(have, "memory"), size, sizeof(size)),
	       text_of(node, "policy"), text_of(node, "version"));
	print_health(json_object_get(node, "health"));
}

static void print_clusters(const json_t *list)
{
	const json_t *cluster, *vm;
	size_t i, k;

	json_array_foreach (json_object_get(list, "clusters"), i, cluster) {
		printf("cluster   %s of user %lld, %s\n", text_of(cluster, "cluster"),
		       number_of(cluster, "user"), text_of(cluster, "state"));
		json_array_foreach (json_object_get(cluster, "vms"), k, vm)
			printf("          %s: %lld vCPUs on %s%s\n", text_of(vm, "name"),
			       number_of(vm, "vcpus"), text_of(vm, "cpus"),
			       json_is_true(json_object_get(vm, "dedicated")) ? ", its own" : "");
	}
}

static int check_name(const struct option_parser *parser, const json_t *node, struct error *err)
{
	const char *name = text_of(node, "name");

	if (!parser->argc || !strcmp(parser->argv[0], name))
		return 0;
	return error_set(err, -ENOENT, "the daemon here knows node %s alone, not %s", name,
			 parser->argv[0]);
}

static int run_show(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *node = NULL, *list = NULL;
	struct error err;
	int r = parse(cmd, &parser, argc, argv, 1, &o, &err);

	if (r)
		return usage(cmd, r, &err);
	r = facts(&o, &node, &err);
	if (!r)
		r = check_name(&parser, node, &err);
	if (!r)
		r = ask_once(&o, json_pack("{s:s, s:b}", "op", "list", "all", o.all), &list, &err);
	if (!r && o.json)
		json_object_set(node, "clusters", json_object_get(list, "clusters"));
	if (!r && o.json)
		cli_print_json(json_incref(node));
	else if (!r) {
		print_node(node);
		print_clusters(list);
	}
	json_decref(node);
	json_decref(list);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_node_show = {
	.name = "node show",
	.args = "[NAME]",
	.summary = "Show a node: what it is made of, how it is, and who has what there",
	.options = (const struct option_desc[]){SOCKET_ROW,
						{OPT_ALL, "all", 0, NULL,
						 "Clusters of all users (operators)", 0},
						JSON_ROW,
						{0}},
	.run = run_show,
};

/* -------- drain and resume -------- */

static int run_drain(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	struct error err;
	int r = parse(cmd, &parser, argc, argv, 1, &o, &err);

	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "say why, in one argument");
	if (r)
		return usage(cmd, r, &err);
	r = ask_once(&o, json_pack("{s:s, s:s}", "op", "drain", "because", parser.argv[0]), NULL,
		     &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_node_drain = {
	.name = "node drain",
	.args = "BECAUSE",
	.summary = "Let the node take nothing new; VMs go to other nodes of their clusters",
	.details =
		"Clusters whose program runs move their VMs at once, as \"wisp cluster migrate\" "
		"does. Where there is no room the VMs stay, their users are told why, and it is "
		"tried again every 30 s; said again, at once. \"wisp node show --all\" has what is "
		"still there.",
	.options = (const struct option_desc[]){SOCKET_ROW, {0}},
	.run = run_drain,
};

static int run_resume(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	struct error err;
	int r = parse(cmd, &parser, argc, argv, 0, &o, &err);

	if (r)
		return usage(cmd, r, &err);
	r = ask_once(&o, json_pack("{s:s}", "op", "undrain"), NULL, &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_node_resume = {
	.name = "node resume",
	.args = "",
	.summary = "Let a drained node take clusters again",
	.options = (const struct option_desc[]){SOCKET_ROW, {0}},
	.run = run_resume,
};

/* -------- account -------- */

static json_t *account_request(const struct options *o)
{
	json_t *request = json_pack("{s:s, s:s*, s:I}", "op", "account", "cluster", o->cluster,
				    "since", (json_int_t)o->since);

	if (o->until)
		json_object_set_new(request, "until", json_integer(o->until));
	if (o->has_user)
		json_object_set_new(request, "user", json_integer(o->user));
	return request;
}

/* The hardware threads that were its own: a list, or "-". */
static const char *own_cpus(const json_t *record, char *buf, size_t size)
{
	const json_t *cpu;
	cpu_set_t set;
	size_t i;

	CPU_ZERO(&set);
	json_array_foreach (json_object_get(json_object_get(record, "held"), "cpus"), i, cpu)
		if (json_integer_value(cpu) < CPU_SETSIZE)
			CPU_SET((size_t)json_integer_value(cpu), &set);
	return CPU_COUNT(&set) ? format_cpulist(&set, buf, size) : "-";
}

static void print_record(const json_t *record)
{
	const struct passwd *user = getpwuid((uid_t)number_of(record, "user"));
	time_t started = (time_t)number_of(record, "started");
	struct tm utc;
	char when[32], number[32], cpus[256];

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&started, &utc));
	snprintf(number, sizeof(number), "%lld", number_of(record, "user"));
	printf("%-10s %-20s %-10s %s %9lld %11.1f %12lld %-10s %s\n", user ? user->pw_name : number,
	       text_of(record, "cluster"), text_of(record, "vm"), when,
	       number_of(record, "seconds"),
	       json_number_value(json_object_get(record, "cpu_seconds")),
	       number_of(record, "core_seconds"), own_cpus(record, cpus, sizeof(cpus)),
	       json_is_null(json_object_get(record, "ended")) ? "runs" : text_of(record, "how"));
}

static int run_account(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *answer = NULL, *list, *record;
	struct error err;
	size_t i;
	int r = parse(cmd, &parser, argc, argv, 0, &o, &err);

	if (r)
		return usage(cmd, r, &err);
	r = ask_once(&o, account_request(&o), &answer, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	list = json_object_get(answer, "records");
	if (o.json)
		r = cli_print_json(json_incref(list));
	else
		printf("%-10s %-20s %-10s %-20s %9s %11s %12s %-10s %s\n", "USER", "CLUSTER", "VM",
		       "STARTED", "SECONDS", "CPU-SECONDS", "CORE-SECONDS", "CPUS", "END");
	json_array_foreach (list, i, record)
		if (!o.json)
			print_record(record);
	json_decref(answer);
	return r;
}

const struct command cmd_account = {
	.name = "account",
	.args = "",
	.summary = "Show what virtual machines of clusters used on this node",
	.details = "CPUS are the hardware threads that nobody else had. --json also has the memory "
		   "on each NUMA node and the devices of each (held), exits, bytes and more.",
	.options =
		(const struct option_desc[]){
			{OPT_USER, "user", 0, "NAME",
			 "Records of this user (default: yours, of all users for operators)", 0},
			{OPT_CLUSTER, "cluster", 0, "NAME", "Records of this cluster", 0},
			{OPT_SINCE, "since", 0, "TIME",
			 "From this time on, 2027-01-31 or 2027-01-31T12:00:00Z", 0},
			{OPT_UNTIL, "until", 0, "TIME", "Until this time", 0},
			SOCKET_ROW,
			JSON_ROW,
			{0}},
	.run = run_account,
};
