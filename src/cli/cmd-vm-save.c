/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm checkpoint and suspend: a VM kept in a folder. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "mover/epoch.h"
#include "vms/control.h"
#include "vms/record.h"
#include "vms/vms.h"

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
	return vm_call_mover(cmd, "checkpoint", vm_dir, options);
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
		vm_pass_option(cmd, r, value, &options);
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
		   "interrupted one adds nothing. The disks that it writes (vm start --disk) are "
		   "saved "
		   "as they are at the same moment.",
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
			VM_PROGRESS_OPTION,
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
		vm_pass_option(cmd, r, value, &options);
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
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_suspend,
};

/* -------- restore -------- */

struct restore {
	struct vm_place place;
	const char *clock, *progress;
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

/*
 * A wisp-mover that was killed while it brought memory: the VM waits a while for another. One that
 * fails, or is told to end by ^C, has said so and has ended the VM.
 */
static int bring_the_rest(const struct command *cmd, const char *vm_dir, struct args *options,
			  int code)
{
	args_add(options, "--again");
	for (unsigned i = 0; code > 128 && code != EXIT_INTERRUPTED && i < LAZY_TRIES; i++) {
		fprintf(stderr, "wisp vm restore: wisp-mover was killed, another one goes on\n");
		code = vm_call_mover(cmd, "restore", vm_dir, options);
	}
	return code;
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
	if (o->progress)
		args_add(&options, "--progress=%s", o->progress);
	r = vm_call_mover(cmd, "restore", vm_dir, &options);
	if (o->lazy)
		r = bring_the_rest(cmd, vm_dir, &options, r);
	args_done(&options);
	return r;
}

/* The other VMs of its network may be on these nodes. Without them it is restored all the same. */
static void link_again(const json_t *config)
{
	struct error err;

	if (vms_link(record_text(config, "network"), NULL, json_object_get(config, "nodes"), NULL,
		     &err))
		fprintf(stderr, "wisp vm restore: not linked to the nodes it was linked to: %s\n",
			err.text);
}

static int restore(const struct command *cmd, struct restore *o, const char *dir)
{
	CLEANUP_FREE char *vm_dir = NULL;
	json_t *config = NULL;
	struct error err;
	const char *name = "";
	int r = saved_config(dir, &o->at, &config, &err);

	vm_hold_signals();
	if (!r)
		r = vm_start_empty(&o->place, config, &vm_dir, &err);
	if (config)
		name = record_text(config, "name");
	if (r) {
		r = cli_fail(cmd, r == -ECANCELED ? 130 : EXIT_FAILURE, &err);
	} else {
		if (!o->place.net)
			link_again(config);
		r = load(cmd, o, vm_dir, dir);
		if (r)
			vm_give_up(name);
		else if (vm_wait_here(name, true, VM_AGENT_TIMEOUT_S, &err))
			fprintf(stderr, "wisp vm restore: it runs, but %s\n", err.text);
		else if (!o->json)
			printf("%s: runs at %s\n", name, record_text(config, "address"));
	}
	json_decref(config);
	return r;
}

static int restore_option(struct restore *o, int id, const char *value, struct error *err)
{
	switch (id) {
	case OPT_AT:
		return parse_u64(value, "epoch", 1, INT64_MAX, &o->at, err);
	case OPT_NAME:
		o->place.name = value;
		return 0;
	case OPT_NET:
		o->place.net = value;
		return paths_check_name(value, "network", err);
	case OPT_CLOCK:
		if (strcmp(value, "frozen") && strcmp(value, "elapsed"))
			return error_set(err, -EINVAL, "--clock is frozen or elapsed, not %s",
					 value);
		o->clock = value;
		return 0;
	case OPT_LAZY:
		o->lazy = true;
		return 0;
	case OPT_PROGRESS:
		o->progress = value;
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
		"already. The network is linked to the nodes that it was linked to. It continues "
		"where it was saved, with its programs, and never knew.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_AT,
			 .name = "at",
			 .arg = "EPOCH",
			 .help = "Which epoch (default the newest)"},
			VM_PLACE_OPTIONS,
			{.id = OPT_CLOCK,
			 .name = "clock",
			 .arg = "frozen|elapsed",
			 .help = "Whether its clocks go on where they stopped or jump to now "
				 "(default frozen)"},
			{.id = OPT_LAZY,
			 .name = "lazy",
			 .help = "Run it at once and read its memory as it needs it"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_restore,
};
