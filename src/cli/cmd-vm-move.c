/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm checkpoint, suspend, restore, migrate and receive: wisp-mover for VMs by their names. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "mover/epoch.h"
#include "vms/control.h"
#include "vms/record.h"
#include "vms/vms.h"

#define VMM_TIMEOUT_S 60 /* for an empty machine to take commands */
#define AGENT_TIMEOUT_S 60

enum {
	OPT_LIVE = OPT_FOLLOW + 1,
	OPT_STOP,
	OPT_INCREMENTAL,
	OPT_COMPRESS,
	OPT_AT,
	OPT_NAME,
	OPT_CLOCK,
	OPT_LAZY,
	OPT_STREAMS,
	OPT_DOWNTIME,
	OPT_THROTTLE,
	OPT_DRY_RUN,
	OPT_TIMEOUT_MS,
	OPT_AGAIN,
	OPT_TOKEN,
	OPT_LISTEN,
};

/* Runs wisp-mover in our place in the terminal: ^C reaches it, and its exit code is ours. */
static int run_mover(const struct command *cmd, struct args *args)
{
	struct process process = {.argv = (const char *const *)args->v, .die_with_parent = true};
	struct error err;
	pid_t pid;
	int status, r = args->failed ? error_errno(&err, -ENOMEM, "cannot start wisp-mover")
				     : process_start(&process, &pid, &err);

	if (!r) {
		r = process_wait(pid, &status);
		if (r)
			error_errno(&err, r, "cannot wait for wisp-mover");
	}
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : process_exit_code(status);
}

/* wisp-mover WHAT --control ... with the options, which stay the caller's. Returns the exit code.
 */
static int call_mover(const struct command *cmd, const char *what, const char *vm_dir,
		      const struct args *options)
{
	CLEANUP_FREE char *program = NULL;
	struct args args = {0};
	struct error err;
	int r = paths_program("wisp-mover", &program, &err);

	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	args_add(&args, "%s", program);
	args_add(&args, "%s", what);
	args_add(&args, "--control=%s/" VM_CONTROL, vm_dir);
	for (size_t i = 0; i < options->n; i++)
		args_add(&args, "%s", options->v[i]);
	args.failed |= options->failed;
	r = run_mover(cmd, &args);
	args_done(&args);
	return r;
}

/* An option that wisp-mover has as well, under the same name. */
static void pass_option(const struct command *cmd, int id, const char *value, struct args *options)
{
	const struct option_desc *o = cmd->options;

	while (o->id != id)
		o++;
	if (value)
		args_add(options, "--%s=%s", o->name, value);
	else
		args_add(options, "--%s", o->name);
}

/* -------- checkpoint -------- */

static int checkpoint(const struct command *cmd, const char *name, const char *dir,
		      struct args *options)
{
	CLEANUP_FREE char *vm_dir = NULL;
	struct error err;

	if (vms_dir(name, &vm_dir, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	args_add(options, "--dir=%s", dir);
	args_add(options, "--config=%s/" RECORD_CONFIG, vm_dir);
	return call_mover(cmd, "checkpoint", vm_dir, options);
}

static int run_checkpoint(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	struct error err;
	const char *value;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0 && r != OPTION_HELP)
		pass_option(cmd, r, value, &options);
	if (!r && parser.argc != 2)
		r = error_set(&err, -EINVAL, "give the name of a VM and a folder");
	if (!r)
		r = checkpoint(cmd, parser.argv[0], parser.argv[1], &options);
	else
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	args_done(&options);
	return r;
}

const struct command cmd_vm_checkpoint = {
	.name = "vm checkpoint",
	.args = "NAME DIR",
	.summary = "Save a virtual machine as a new epoch of a checkpoint folder",
	.details = "The VM goes on afterwards. The folder is made when it is not there; every "
		   "checkpoint adds an epoch to it (wisp checkpoint list shows them), and an "
		   "interrupted one adds nothing. Writable disks (vm start --disk) are not saved.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_STOP,
			 .name = "stop",
			 .help = "Pause it until all is written (default)"},
			{.id = OPT_LIVE,
			 .name = "live",
			 .help = "Let it run while most of its memory is written"},
			{.id = OPT_INCREMENTAL,
			 .name = "incremental",
			 .help = "Only what has changed since the newest epoch"},
			{.id = OPT_COMPRESS,
			 .name = "compress",
			 .arg = "none|lz4|zstd",
			 .help = "Compression of its memory (default none)"},
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_checkpoint,
};

/* -------- suspend -------- */

static int suspend_in_memory(const struct command *cmd, const char *name)
{
	CLEANUP_FREE char *dir = NULL;
	struct error err;
	int r = vms_dir(name, &dir, &err);

	if (!r)
		r = control_call(dir, "pause", NULL, NULL, &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

/* The VM ends only once the epoch is safe; when that fails it runs on. */
static int suspend_to_disk(const struct command *cmd, const char *name, const char *dir,
			   struct args *options)
{
	struct vms_stop stop = {.kill = true};
	struct error err;
	int r;

	args_add(options, "--suspend");
	r = checkpoint(cmd, name, dir, options);
	if (r)
		return r;
	r = vms_stop(name, &stop, &err);
	vms_leave_networks();
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static int run_suspend(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	struct error err;
	const char *value;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0 && r != OPTION_HELP)
		pass_option(cmd, r, value, &options);
	if (!r && (parser.argc < 1 || parser.argc > 2))
		r = error_set(&err, -EINVAL, "give the name of a VM, and a folder to save it in");
	if (!r && options.n && parser.argc == 1)
		r = error_set(&err, -EINVAL, "%s is for a VM saved in a folder: give one",
			      options.v[0]);
	if (r)
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	else if (parser.argc == 1)
		r = suspend_in_memory(cmd, parser.argv[0]);
	else
		r = suspend_to_disk(cmd, parser.argv[0], parser.argv[1], &options);
	args_done(&options);
	return r;
}

const struct command cmd_vm_suspend = {
	.name = "vm suspend",
	.args = "NAME [DIR]",
	.summary = "Put a virtual machine to sleep, in memory or in a checkpoint folder",
	.details =
		"Without a folder its vCPUs stop and its memory stays; wisp vm resume lets it run "
		"on. With one it is saved as a new epoch there and ends; wisp vm restore brings it "
		"back. When it cannot be saved it runs on.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_INCREMENTAL,
			 .name = "incremental",
			 .help = "Only what has changed since the newest epoch"},
			{.id = OPT_COMPRESS,
			 .name = "compress",
			 .arg = "none|lz4|zstd",
			 .help = "Compression of its memory (default none)"},
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_suspend,
};

/* -------- restore -------- */

struct restore {
	const char *name, *clock;
	uint64_t at; /* 0: the newest */
	bool lazy, json;
};

static int newest(const struct store *store, const char *dir, uint64_t *ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n = 0;
	int r = store_epochs(store, &epochs, &n, err);

	if (r || !n)
		return r ? r : error_set(err, -ENOENT, "there is no checkpoint in %s", dir);
	*ret = epochs[n - 1];
	return 0;
}

/* The configuration that an epoch was saved with; *at 0 becomes the newest. */
static int saved_config(const char *dir, uint64_t *at, json_t **ret, struct error *err)
{
	struct manifest manifest;
	struct store store;
	json_t *config;
	int r = store_open(dir, false, &store, err);

	if (r)
		return r;
	if (!*at)
		r = newest(&store, dir, at, err);
	if (!r)
		r = epoch_manifest(&store, *at, &manifest, err);
	store_close(&store);
	if (r)
		return r;
	/* What wisp-mover was given by checkpoint(): vm.json. */
	config = json_object_get(json_object_get(manifest.json, "config"), "caller");
	if (json_is_object(config) && *record_text(config, "address"))
		*ret = json_deep_copy(config);
	else
		r = error_set(err, -EBADMSG,
			      "%s was not made by wisp vm checkpoint: it does not say how to start "
			      "its VM (wisp-mover restore loads it into one that you start)",
			      dir);
	manifest_done(&manifest);
	return r;
}

/* The network it was on: the guest has its address there. */
static int saved_subnet(const json_t *config, struct subnet *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	struct subnet whole = {.base = 0, .prefix = 0};
	unsigned prefix = (unsigned)json_integer_value(json_object_get(config, "prefix"));
	uint32_t address;
	int r = subnet_parse_address(&whole, record_text(config, "address"), &address, err);

	if (r)
		return r;
	if (prefix < 1 || prefix > 30)
		return error_set(err, -EBADMSG, "the saved network has a prefix of %u", prefix);
	*ret = (struct subnet){.base = address & ~(UINT32_MAX >> prefix), .prefix = prefix};
	return 0;
}

/* Starts the empty machine. *ret is its state directory. */
static int start_empty(const char *as, json_t *config, char **ret, struct error *err)
{
	CLEANUP_FREE char *network = strdup(record_text(config, "network"));
	struct subnet subnet;
	json_t *vm = NULL, *boot = NULL;
	const char *name;
	int r = network ? saved_subnet(config, &subnet, err) : -ENOMEM;

	if (r)
		return r;
	json_object_set_new(config, "incoming", json_true());
	if (as)
		json_object_set_new(config, "name", json_string(as));
	name = record_text(config, "name");
	r = vms_start(config, network, &subnet, &vm, err);
	json_decref(vm);
	if (r)
		return r;
	r = vms_wait(name, false, VMM_TIMEOUT_S * 1000, &boot, err);
	json_decref(boot);
	return r ? r : vms_dir(name, ret, err);
}

static void give_up(const char *name)
{
	struct vms_stop stop = {.kill = true};

	vms_stop(name, &stop, NULL);
	vms_leave_networks();
}

/* Loads the epoch into the machine, which then runs. Returns the exit code. */
static int load(const struct command *cmd, const struct restore *o, const char *vm_dir,
		const char *dir)
{
	struct args options = {0};
	int r;

	args_add(&options, "--dir=%s", dir);
	args_add(&options, "--at=%" PRIu64, o->at);
	if (o->clock)
		args_add(&options, "--clock=%s", o->clock);
	if (o->lazy)
		args_add(&options, "--lazy");
	if (o->json)
		args_add(&options, "--json");
	r = call_mover(cmd, "restore", vm_dir, &options);
	args_done(&options);
	return r;
}

static int restore(const struct command *cmd, struct restore *o, const char *dir)
{
	CLEANUP_FREE char *vm_dir = NULL;
	json_t *config = NULL, *boot = NULL;
	struct error err;
	const char *name = "";
	int r = saved_config(dir, &o->at, &config, &err);

	if (!r)
		r = start_empty(o->name, config, &vm_dir, &err);
	if (config)
		name = record_text(config, "name");
	if (r) {
		r = cli_fail(cmd, EXIT_FAILURE, &err);
	} else {
		r = load(cmd, o, vm_dir, dir);
		if (r)
			give_up(name);
		else if (vms_wait(name, true, AGENT_TIMEOUT_S * 1000, &boot, &err))
			fprintf(stderr, "wisp vm restore: it runs, but %s\n", err.text);
		else if (!o->json)
			printf("%s: runs at %s\n", name, record_text(config, "address"));
	}
	json_decref(boot);
	json_decref(config);
	return r;
}

static int restore_option(struct restore *o, int id, const char *value, struct error *err)
{
	switch (id) {
	case OPT_AT:
		return parse_u64(value, "epoch", 1, INT64_MAX, &o->at, err);
	case OPT_NAME:
		o->name = value;
		return 0;
	case OPT_CLOCK:
		if (strcmp(value, "frozen") && strcmp(value, "elapsed"))
			return error_set(err, -EINVAL, "--clock is frozen or elapsed, not %s",
					 value);
		o->clock = value;
		return 0;
	case OPT_LAZY:
		o->lazy = true;
		return 0;
	default:
		o->json = true;
		return 0;
	}
}

static int run_restore(const struct command *cmd, int argc, char **argv)
{
	struct restore o = {0};
	struct option_parser parser;
	struct error err;
	const char *value;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0) {
		if (r == OPTION_HELP)
			return 0;
		r = restore_option(&o, r, value, &err);
		if (r)
			break;
	}
	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "give one folder of checkpoints");
	return r ? cli_fail(cmd, EXIT_USAGE, &err) : restore(cmd, &o, parser.argv[0]);
}

const struct command cmd_vm_restore = {
	.name = "vm restore",
	.args = "DIR",
	.summary = "Run a virtual machine on from a checkpoint",
	.details =
		"A new VM with the name, network and address that were saved; it must not run here "
		"already. It continues where it was saved, with its programs, and never knew.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_AT,
			 .name = "at",
			 .arg = "EPOCH",
			 .help = "Which epoch (default the newest)"},
			{.id = OPT_NAME,
			 .name = "name",
			 .letter = 'n',
			 .arg = "NAME",
			 .help = "Under another name (the guest keeps the one it knows)"},
			{.id = OPT_CLOCK,
			 .name = "clock",
			 .arg = "frozen|elapsed",
			 .help = "Whether its clocks go on where they stopped or jump to now "
				 "(default frozen)"},
			{.id = OPT_LAZY,
			 .name = "lazy",
			 .help = "Run it at once and read its memory as it needs it"},
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_restore,
};

/* -------- migrate and receive -------- */

/* Options that wisp-mover has as well, and NAME of receive. */
static int parse_move(const struct command *cmd, struct option_parser *parser, struct args *options,
		      const char **name, bool *token, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		*token |= r == OPT_TOKEN;
		if (r == OPT_NAME)
			*name = value;
		else
			pass_option(cmd, r, value, options);
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
	r = call_mover(cmd, what, vm_dir, options);
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
	const char *name = NULL;
	struct error err;
	bool token = false;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_move(cmd, &parser, &options, &name, &token, &err);
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
		"code 3: the hand-over was cut off; --again goes on with it. The network between "
		"the two must be trusted: what is sent is not encrypted yet.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_TOKEN,
			 .name = "token",
			 .arg = "FILE",
			 .complete = COMPLETE_FILE,
			 .help = "64 hexadecimal digits that the receiver knows too; needed"},
			{.id = OPT_STREAMS,
			 .name = "streams",
			 .arg = "N",
			 .help = "Connections for its memory (default 2)"},
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

static int receive(const struct command *cmd, const char *as, struct args *options)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL, *boot = NULL;
	const char *name;
	struct error err;
	int r = read_description(&config, &err);

	if (!r)
		r = start_empty(as, config, &dir, &err);
	if (r) {
		json_decref(config);
		return cli_fail(cmd, EXIT_FAILURE, &err);
	}
	name = record_text(config, "name");
	r = move(cmd, "receive", dir, options);
	if (r == EXIT_FAILURE || r == EXIT_USAGE)
		give_up(name);
	else if (!r && vms_wait(name, true, AGENT_TIMEOUT_S * 1000, &boot, &err))
		fprintf(stderr, "wisp vm receive: it runs, but %s\n", err.text);
	else if (!r)
		printf("%s: runs at %s\n", name, record_text(config, "address"));
	json_decref(boot);
	json_decref(config);
	return r;
}

static int run_receive(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	const char *name = NULL;
	struct error err;
	bool token = false;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_move(cmd, &parser, &options, &name, &token, &err);
	if (!r && parser.argc)
		r = error_set(&err, -EINVAL, "unexpected argument %s", parser.argv[0]);
	if (!r)
		r = receive(cmd, name, &options);
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
			{.id = OPT_NAME,
			 .name = "name",
			 .letter = 'n',
			 .arg = "NAME",
			 .help = "Under another name (the guest keeps the one it knows)"},
			{.id = OPT_TIMEOUT_MS,
			 .name = "timeout",
			 .arg = "MS",
			 .help = "How long the other side may be silent (default 10000)"},
			{0}},
	.run = run_receive,
};
