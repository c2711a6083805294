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
#include "vms/shares-agent.h"
#include "vms/vms.h"

/* -------- checkpoint -------- */

/* The guest has its shares again: without them its programs would find empty folders. */
static void attach_shares(const struct command *cmd, const char *vm_dir, const json_t *config)
{
	struct error err;

	if (shares_attach(vm_dir, config, &err))
		fprintf(stderr, "wisp %s: the VM is without its shares: %s\n", cmd->name, err.text);
}

static int checkpoint(const struct command *cmd, const char *name, const char *dir, bool ends,
		      struct args *options)
{
	CLEANUP_FREE char *vm_dir = NULL;
	json_t *config = NULL;
	struct error err;
	int r = vms_dir(name, &vm_dir, &err);

	if (!r)
		r = record_read(vm_dir, RECORD_CONFIG, &config, &err);
	if (!r)
		r = shares_detach(vm_dir, config, &err);
	if (r) {
		json_decref(config);
		return cli_fail(cmd, EXIT_FAILURE, &err);
	}
	if (*record_text(config, "image_key"))
		args_add(options, "--image=%s", record_text(config, "image_key"));
	args_add(options, "--dir=%s", dir);
	args_add(options, "--config=%s/" RECORD_CONFIG, vm_dir);
	r = vm_call_mover(cmd, "checkpoint", vm_dir, options);
	if (r || !ends)
		attach_shares(cmd, vm_dir, config);
	json_decref(config);
	return r;
}

/* All options are wisp-mover's. As option_next(): 0 at the end, OPTION_HELP, or -errno. */
static int take_options(const struct command *cmd, int argc, char **argv,
			struct option_parser *parser, struct args *options, struct error *err)
{
	const char *value;
	int r;

	option_start(parser, cmd, argc, argv);
	while ((r = option_next(parser, &value, err)) > 0 && r != OPTION_HELP)
		vm_pass_option(cmd, r, value, options);
	return r;
}

static int run_checkpoint(const struct command *cmd, int argc, char **argv)
{
	struct args options = {0};
	struct option_parser parser;
	struct error err;
	int r = take_options(cmd, argc, argv, &parser, &options, &err);

	if (!r && parser.argc != 2)
		r = error_set(&err, -EINVAL, "give the name of a VM and a folder");
	if (!r)
		r = checkpoint(cmd, parser.argv[0], parser.argv[1], false, &options);
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
		   "saved as they are at the same moment. Its shares are unmounted meanwhile, for "
		   "what the guest has open there cannot be saved: it is refused while one is in "
		   "use.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_STOP,
			 .name = "stop",
			 .help = "Pause it until all is written (default)"},
			{.id = OPT_LIVE,
			 .name = "live",
			 .help = "Let it run while most of its memory is written"},
			{.id = OPT_DOWNTIME,
			 .name = "downtime",
			 .arg = "MS",
			 .help = "With --live: pause to aim for, in milliseconds (default 300)"},
			{.id = OPT_THROTTLE,
			 .name = "throttle",
			 .help = "With --live: slow its vCPUs down if they write faster than can "
				 "be "
				 "saved"},
			{.id = OPT_MAX_PAUSE,
			 .name = "max-pause",
			 .arg = "MS",
			 .help = "With --live: save nothing rather than pause it longer (default: "
				 "as long as it takes)"},
			{.id = OPT_INCREMENTAL,
			 .name = "incremental",
			 .help = "Only what has changed since the newest epoch"},
			{.id = OPT_TRACK,
			 .name = "track",
			 .help = "Have the VM log what it writes, for the next --incremental: that "
				 "costs it a little, and the next one need not compare all memory"},
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
	r = checkpoint(cmd, name, dir, true, options);
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
	int r = take_options(cmd, argc, argv, &parser, &options, &err);

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
