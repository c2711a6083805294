/* SPDX-License-Identifier: Apache-2.0 */
/* wisp network: the networks of virtual machines, and the nodes they are on. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/error.h"
#include "lib/paths.h"
#include "net/state.h"
#include "vms/record.h"
#include "vms/vms.h"

enum { OPT_LOCAL = OPT_FOLLOW + 1, OPT_ID, OPT_SUBNET };

struct options {
	const char *local, *id;
	struct subnet subnet;
	bool has_subnet, json, names;
};

/* 0, OPTION_HELP, or -errno. */
static int parse(const struct command *cmd, struct option_parser *parser, int argc, char **argv,
		 struct options *o, struct error *err)
{
	const char *value;
	int r;

	option_start(parser, cmd, argc, argv);
	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		o->json |= r == OPT_JSON;
		o->names |= r == OPT_NAMES;
		if (r == OPT_LOCAL)
			o->local = value;
		if (r == OPT_ID)
			o->id = value;
		if (r != OPT_SUBNET)
			continue;
		o->has_subnet = true;
		r = subnet_parse(value, &o->subnet, err);
		if (r)
			return r;
	}
	return r;
}

static int usage(const struct command *cmd, int r, const struct error *err)
{
	return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, err);
}

/* What its keeper says of it, a new reference. */
static int ask(const char *name, json_t **ret, struct error *err)
{
	const struct vms_network net = {.name = name};
	json_t *request = json_pack("{ss}", "op", "network");
	int r = request ? vms_network_call(&net, false, request, ret, err)
			: error_errno(err, -ENOMEM, "network %s", name);

	json_decref(request);
	if (!r)
		json_object_del(*ret, "ok");
	return r;
}

/* -------- list and show -------- */

static void print_line(const json_t *n)
{
	const json_t *nodes = json_object_get(n, "nodes"), *vms = json_object_get(n, "vms"), *vm;
	size_t i, here = 0;

	json_array_foreach ((json_t *)vms, i, vm)
		here += json_is_true(json_object_get(vm, "here"));

	printf("%-16s %s  %s/%lld  %zu VM%s", record_text(n, "name"), record_text(n, "id"),
	       record_text(n, "base"), vm_number(n, "prefix"), here, here == 1 ? "" : "s");
	for (i = 0; i < json_array_size(nodes); i++)
		printf("%s%s",
		       i > 1 ? ", "
		       : i   ? " to "
			     : "  linked: ",
		       json_string_value(json_array_get(nodes, i)));
	putchar('\n');
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *list = json_array();
	char **names = NULL;
	struct error err;
	int r = parse(cmd, &parser, argc, argv, &o, &err);

	if (!r && parser.argc)
		r = error_set(&err, -EINVAL, "unexpected argument %s", parser.argv[0]);
	if (r)
		return usage(cmd, r, &err);
	r = vms_network_names(&names, &err);
	for (char **name = names; !r && *name; name++) {
		json_t *network = NULL;

		if (o.names)
			puts(*name);
		else if (!ask(*name, &network, &err)) /* else it has ended meanwhile */
			json_array_append_new(list, network);
	}
	state_list_free(names);
	for (size_t i = 0; !o.json && i < json_array_size(list); i++)
		print_line(json_array_get(list, i));
	if (!r && o.json)
		return cli_print_json(list);
	json_decref(list);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_network_list = {
	.name = "network list",
	.args = "",
	.summary = "List the networks of virtual machines",
	.options =
		(const struct option_desc[]){
			{.id = OPT_JSON, .name = "json", .help = "Print a JSON array of networks"},
			{.id = OPT_NAMES, .name = "names", .help = "Print the names alone"},
			{0}},
	.run = run_list,
};

static void print_network(const json_t *n)
{
	const json_t *nodes = json_object_get(n, "nodes"), *vms = json_object_get(n, "vms"), *vm;
	size_t i;

	printf("network   %s\nidentity  %s\nVXLAN     %lld\naddresses %s/%lld\n",
	       record_text(n, "name"), record_text(n, "id"), vm_number(n, "vni"),
	       record_text(n, "base"), vm_number(n, "prefix"));
	for (i = 0; i < json_array_size(nodes); i++)
		printf("%-9s %s\n", i ? "linked to" : "here",
		       json_string_value(json_array_get(nodes, i)));
	json_array_foreach ((json_t *)vms, i, vm)
		printf("VM        %s at %s%s\n", record_text(vm, "name"),
		       record_text(vm, "address"),
		       json_is_true(json_object_get(vm, "here")) ? "" : " on another node");
}

static int run_show(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *network = NULL;
	struct error err;
	int r = parse(cmd, &parser, argc, argv, &o, &err);

	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "give the name of a network");
	if (r)
		return usage(cmd, r, &err);
	r = ask(parser.argv[0], &network, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (o.json)
		return cli_print_json(network);
	print_network(network);
	json_decref(network);
	return 0;
}

const struct command cmd_network_show = {
	.name = "network show",
	.args = "NAME",
	.summary = "Show a network: its identity, its nodes, its virtual machines here",
	.options =
		(const struct option_desc[]){{.id = OPT_JSON, .name = "json", .help = "Print JSON"},
					     {0}},
	.run = run_show,
};

/* -------- link and unlink -------- */

static json_t *addresses(int argc, char **argv)
{
	json_t *list = json_array();

	for (int i = 0; i < argc; i++)
		json_array_append_new(list, json_string(argv[i]));
	return list;
}

/* With an identity the network is made when it is not there. */
static int make(const struct vms_network *net, struct error *err)
{
	json_t *request = json_pack("{ss}", "op", "network");
	int r = request ? vms_network_call(net, net->id, request, NULL, err)
			: error_errno(err, -ENOMEM, "network %s", net->name);

	json_decref(request);
	return r;
}

static int run_link(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	struct vms_network net = {0};
	json_t *peers;
	struct error err;
	int r = parse(cmd, &parser, argc, argv, &o, &err);

	if (!r && parser.argc < 2)
		r = error_set(&err, -EINVAL, "give a network and the addresses of other nodes");
	if (!r)
		r = paths_check_name(parser.argv[0], "network", &err);
	if (r)
		return usage(cmd, r, &err);
	net = (struct vms_network){
		.name = parser.argv[0], .id = o.id, .subnet = o.has_subnet ? &o.subnet : NULL};
	peers = addresses(parser.argc - 1, parser.argv + 1);
	r = make(&net, &err);
	if (!r)
		r = vms_link(net.name, o.local, peers, NULL, &err);
	json_decref(peers);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_network_link = {
	.name = "network link",
	.args = "NAME PEER...",
	.summary = "Link a network to the same network on other nodes",
	.details =
		"PEER is the IPv4 address of another node, where this one's address must be linked "
		"in turn (or is, once a frame has come from here). Frames between the nodes travel "
		"by VXLAN (UDP port 4789), unencrypted: the nodes' network must be trusted. Needs "
		"CAP_NET_ADMIN. wisp vm migrate and wisp vm restore do all this by themselves.\n\n"
		"With --id the network is made when it is not there; like every network it ends "
		"some seconds after its last VM.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_LOCAL,
			 .name = "local",
			 .arg = "ADDRESS",
			 .help = "This node's address (default: the one that leads to the first "
				 "peer)"},
			{.id = OPT_ID,
			 .name = "id",
			 .arg = "IDENTITY",
			 .help = "What wisp network show says of it at the other node"},
			{.id = OPT_SUBNET,
			 .name = "subnet",
			 .arg = "ADDRESS/PREFIX",
			 .help = "Its addresses there (default " SUBNET_DEFAULT ")"},
			{0}},
	.run = run_link,
};

static int run_unlink(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct options o = {0};
	json_t *peers;
	struct error err;
	int r = parse(cmd, &parser, argc, argv, &o, &err);

	if (!r && parser.argc < 1)
		r = error_set(&err, -EINVAL, "give the name of a network");
	if (r)
		return usage(cmd, r, &err);
	peers = parser.argc > 1 ? addresses(parser.argc - 1, parser.argv + 1) : NULL;
	r = vms_unlink(parser.argv[0], peers, false, &err);
	json_decref(peers);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_network_unlink = {
	.name = "network unlink",
	.args = "NAME [PEER...]",
	.summary = "Cut a network's links to these nodes, or to all",
	.options = (const struct option_desc[]){{0}},
	.run = run_unlink,
};
