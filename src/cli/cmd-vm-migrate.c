/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm migrate and receive: a running VM goes from one machine to another. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "vms/record.h"
#include "vms/vms.h"

/* Of both commands; both sides have to agree. */
#define TLS_OPTIONS                                                                              \
	{.id = OPT_TLS, .name = "tls", .help = "Encrypt what is sent (default for tcp)"},        \
	{                                                                                        \
		.id = OPT_NO_TLS, .name = "no-tls",                                              \
		.help = "Do not: whoever is on the network can read and change the VM (default " \
			"for unix)"                                                              \
	}

/* Options that wisp-mover has as well, and the place of receive. */
static int parse_move(const struct command *cmd, struct option_parser *parser, struct args *options,
		      struct vm_place *place, bool *token, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		*token |= r == OPT_TOKEN;
		if (r == OPT_NAME)
			place->name = value;
		else if (r == OPT_NET)
			place->net = value;
		else
			vm_pass_option(cmd, r, value, options);
	}
	if (!r && !*token)
		r = error_set(err, -EINVAL,
			      "give --token FILE: 64 hexadecimal digits that both sides know, "
			      "made for this migration");
	return r;
}

static int move(const struct command *cmd, const char *what, const char *vm_dir,
		struct args *options)
{
	/* One that came here may leave again: each hand-over has a record of its own. */
	CLEANUP_FREE char *record = io_format("%s/%s.record", vm_dir, what);
	struct error err;
	int r;

	if (!record) {
		error_errno(&err, -ENOMEM, "cannot start wisp-mover");
		return cli_fail(cmd, EXIT_FAILURE, &err);
	}
	args_add(options, "--record=%s", record);
	r = vm_call_mover(cmd, what, vm_dir, options);
	/*
	 * Settled. After any failure wisp-mover knows whether a record is to stay: it may be that
	 * of an earlier hand-over, which says whose the VM is.
	 */
	if (!r)
		unlink(record);
	return r;
}

static bool has_word(const struct args *options, const char *word)
{
	for (size_t i = 0; i < options->n; i++)
		if (!strcmp(options->v[i], word))
			return true;
	return false;
}

/* What has left is forgotten here. */
static int migrate(const struct command *cmd, const char *name, const char *to,
		   struct args *options)
{
	CLEANUP_FREE char *dir = NULL;
	struct vms_stop stop = {.kill = true};
	struct error err;
	int r = vms_dir(name, &dir, &err);

	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	args_add(options, "--to=%s", to);
	r = move(cmd, "send", dir, options);
	if (r || has_word(options, "--dry-run"))
		return r;
	r = vms_stop(name, &stop, &err);
	vms_leave_networks();
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static int run_migrate(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	struct vm_place place = {0};
	struct error err;
	bool token = false;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_move(cmd, &parser, &options, &place, &token, &err);
	if (!r && parser.argc != 2)
		r = error_set(&err, -EINVAL, "give the name of a VM and where it is received");
	if (!r)
		r = migrate(cmd, parser.argv[0], parser.argv[1], &options);
	else
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	args_done(&options);
	return r;
}

const struct command cmd_vm_migrate = {
	.name = "vm migrate",
	.args = "NAME ADDRESS",
	.summary = "Move a running virtual machine to where it is received",
	.details =
		"ADDRESS is tcp:HOST:PORT or unix:PATH of a wisp vm receive. The VM runs while its "
		"memory is sent; when anything fails before the hand-over it runs on here. Exit "
		"code 3: the hand-over was cut off; --again goes on with it.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_TOKEN,
			 .name = "token",
			 .arg = "FILE",
			 .complete = COMPLETE_FILE,
			 .help = "64 hexadecimal digits that the receiver knows too; needed"},
			TLS_OPTIONS,
			{.id = OPT_STREAMS,
			 .name = "streams",
			 .arg = "N",
			 .help = "Connections for its memory (default 2)"},
			{.id = OPT_BANDWIDTH,
			 .name = "bandwidth",
			 .arg = "RATE",
			 .help = "Bytes a second (K, M, G) while it runs (default no limit)"},
			{.id = OPT_DOWNTIME,
			 .name = "downtime",
			 .arg = "MS",
			 .help = "Pause to aim for, in milliseconds (default 300)"},
			{.id = OPT_COMPRESS,
			 .name = "compress",
			 .arg = "none|lz4|zstd",
			 .help = "Compression of its memory (default none)"},
			{.id = OPT_THROTTLE,
			 .name = "throttle",
			 .help = "Slow its vCPUs down if they write faster than can be sent"},
			{.id = OPT_CLOCK,
			 .name = "clock",
			 .arg = "frozen|elapsed",
			 .help = "Whether its clocks show the pause (default elapsed)"},
			{.id = OPT_TIMEOUT_MS,
			 .name = "timeout",
			 .arg = "MS",
			 .help = "How long the other side may be silent (default 10000)"},
			{.id = OPT_DRY_RUN,
			 .name = "dry-run",
			 .help = "Only tell what would keep it from moving"},
			{.id = OPT_AGAIN,
			 .name = "again",
			 .help = "Go on with a hand-over that was cut off"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_migrate,
};

/* The VM's description, from its vm.json on standard input. */
static int read_description(json_t **ret, struct error *err)
{
	json_error_t reason;

	*ret = json_loadf(stdin, JSON_REJECT_DUPLICATES, &reason);
	if (!json_is_object(*ret) || !*record_text(*ret, "address")) {
		json_decref(*ret);
		*ret = NULL;
		return error_set(err, -EINVAL,
				 "standard input is not the description of a VM (vm.json in its "
				 "state directory): %s",
				 *reason.text ? reason.text : "no address");
	}
	return 0;
}

static int receive(const struct command *cmd, const struct vm_place *place, struct args *options)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL, *boot = NULL;
	const char *name;
	struct error err;
	int r = read_description(&config, &err);

	if (!r)
		r = vm_start_empty(place, config, &dir, &err);
	if (r) {
		json_decref(config);
		return cli_fail(cmd, EXIT_FAILURE, &err);
	}
	name = record_text(config, "name");
	r = move(cmd, "receive", dir, options);
	if (r == EXIT_FAILURE || r == EXIT_USAGE)
		vm_give_up(name);
	else if (!r && vms_wait(name, true, VM_AGENT_TIMEOUT_S * 1000, &boot, &err))
		fprintf(stderr, "wisp vm receive: it runs, but %s\n", err.text);
	else if (!r && !has_word(options, "--json"))
		printf("%s: runs at %s\n", name, record_text(config, "address"));
	json_decref(boot);
	json_decref(config);
	return r;
}

static int run_receive(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	struct vm_place place = {0};
	struct error err;
	bool token = false;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_move(cmd, &parser, &options, &place, &token, &err);
	if (!r && parser.argc)
		r = error_set(&err, -EINVAL, "unexpected argument %s", parser.argv[0]);
	if (!r)
		r = receive(cmd, &place, &options);
	else
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	args_done(&options);
	return r;
}

const struct command cmd_vm_receive = {
	.name = "vm receive",
	.args = "",
	.summary = "Take a virtual machine that migrates to this machine",
	.details =
		"Reads the VM's description (vm.json of its state directory) from standard input, "
		"starts an empty machine like it, waits for a wisp vm migrate, and ends when the "
		"VM "
		"runs here or never will.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_LISTEN,
			 .name = "listen",
			 .arg = "ADDRESS",
			 .help = "tcp:HOST:PORT or unix:PATH; needed"},
			{.id = OPT_TOKEN,
			 .name = "token",
			 .arg = "FILE",
			 .complete = COMPLETE_FILE,
			 .help = "64 hexadecimal digits that the sender knows too; needed"},
			TLS_OPTIONS,
			VM_PLACE_OPTIONS,
			{.id = OPT_TIMEOUT_MS,
			 .name = "timeout",
			 .arg = "MS",
			 .help = "How long the other side may be silent (default 10000)"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.run = run_receive,
};
