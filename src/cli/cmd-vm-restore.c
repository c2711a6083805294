/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm restore: a VM goes on from what a folder keeps of it. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/client.h"
#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "vms/record.h"
#include "vms/restore-disks.h"
#include "vms/saved.h"
#include "vms/vms.h"

struct restore {
	struct vm_place place;
	const char *clock, *progress;
	uint64_t at; /* 0: the newest */
	bool lazy, json, force, again, set_clock;
	struct args disks;
};

/*
 * A wisp-mover that was killed while it brought memory: the VM waits a while for another. One that
 * fails, or is told to end by ^C, has said so and has ended the VM.
 */
static int bring_the_rest(const struct command *cmd, const char *vm_dir, struct args *options,
			  int code)
{
	args_add(options, "--again");
	for (unsigned i = 0; vm_mover_killed(code) && i < VM_TRIES; i++) {
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
	if (o->force)
		args_add(&options, "--force");
	if (o->again)
		args_add(&options, "--again");
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

/* The guest's own clock goes on where it stopped; its agent can set it. */
static int set_clock(const char *name, struct error *err)
{
	CLEANUP_CLOSE int fd = vms_agent(name, err);
	struct timespec now;
	json_t *settings;
	int r;

	if (fd < 0)
		return fd;
	clock_gettime(CLOCK_REALTIME, &now);
	settings = json_pack("{s:I}", "clock",
			     (json_int_t)now.tv_sec * 1000000000 + (json_int_t)now.tv_nsec);
	r = client_configure(fd, settings, err);
	json_decref(settings);
	return r;
}

/* It runs: waits for its agent, and sets its clock. */
static int greet(const struct restore *o, const char *name, struct error *err)
{
	int r = vm_wait_here(name, true, VM_AGENT_TIMEOUT_S, err);

	return !r && o->set_clock ? set_clock(name, err) : r;
}

/*
 * Loads it and tells how it went; what had begun ends when it fails, or with the guard when we are
 * killed. Returns the exit code.
 */
static int run_on(const struct command *cmd, const struct restore *o, const char *dir,
		  const char *vm_dir, const json_t *config, int *guard)
{
	const char *name = record_text(config, "name");
	struct error err;
	int code;

	if (!o->place.net)
		link_again(config);
	code = load(cmd, o, vm_dir, dir);
	vms_release(guard);
	if (code)
		vm_give_up(name);
	else if (greet(o, name, &err))
		fprintf(stderr, "wisp vm restore: it runs, but %s\n", err.text);
	else if (!o->json)
		printf("%s: runs at %s\n", name, record_text(config, "address"));
	return code;
}

static int restore(const struct command *cmd, struct restore *o, const char *dir)
{
	CLEANUP_FREE char *vm_dir = NULL;
	json_t *config = NULL, *files = NULL;
	struct args made = {0};
	struct error err;
	int guard = -1, r = saved_read(dir, &o->at, &config, &files, &err);

	if (!r && o->lazy && json_array_size(json_object_get(config, "shares")))
		r = error_set(
			&err, -EOPNOTSUPP,
			"VM %s has shares, whose program reads its memory: restore it without "
			"--lazy",
			record_text(config, "name"));

	if (!r) {
		const struct restore_disks disks = {.dir = dir,
						    .epoch = o->at,
						    .files = files,
						    .given = &o->disks,
						    .force = o->force};

		r = restore_disks(&disks, config, &made, &err);
	}
	/* From here on ^C ends the machine as well. */
	if (!r) {
		vm_hold_signals();
		r = vm_start_empty(&o->place, config, &vm_dir, &guard, &err);
	}
	r = r ? cli_fail(cmd, r == -ECANCELED ? 130 : EXIT_FAILURE, &err)
	      : run_on(cmd, o, dir, vm_dir, config, &guard);
	vms_release(&guard);
	if (r)
		restore_disks_undo(&made);
	args_done(&made);
	json_decref(config);
	json_decref(files);
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
	case OPT_SET_CLOCK:
		o->set_clock = true;
		return 0;
	case OPT_FORCE:
		o->force = true;
		return 0;
	case OPT_AGAIN:
		o->again = true;
		return 0;
	case OPT_RESTORE_DISK:
		args_add(&o->disks, "%s", value);
		return o->disks.failed ? error_errno(err, -ENOMEM, "--disk") : 0;
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
	r = r ? cli_fail(cmd, EXIT_USAGE, &err) : restore(cmd, &o, parser.argv[0]);
	args_done(&o.disks);
	return r;
}

const struct command cmd_vm_restore = {
	.name = "vm restore",
	.args = "DIR",
	.summary = "Run a virtual machine on from a checkpoint",
	.details =
		"A new VM with the name, network and address that were saved; it must not run here "
		"already. The network is linked to the nodes that it was linked to. It continues "
		"where it was saved, with its programs, and never knew. The disks that it writes "
		"get "
		"the content they had then: where they were, or as --disk says. Files that --disk "
		"names are made when they are not there; one that only the checkpoint names must "
		"be there with its content. One that was written since is left alone. In both "
		"cases the VM is not restored without --force. Restore what you trust: the image "
		"and the disks that the VM only reads are where the checkpoint says.",
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
			{.id = OPT_SET_CLOCK,
			 .name = "set-clock",
			 .help = "Have its agent set the time of day to now"},
			{.id = OPT_LAZY,
			 .name = "lazy",
			 .help = "Run it at once and read its memory as it needs it"},
			{.id = OPT_RESTORE_DISK,
			 .name = "disk",
			 .letter = 'd',
			 .arg = "PATH",
			 .complete = COMPLETE_FILE,
			 .help = "Where a disk that it writes is to be; once for each of them, in "
				 "the order of wisp vm start"},
			{.id = OPT_FORCE,
			 .name = "force",
			 .help = "Put disks back also when they were written since (that is lost), "
				 "and "
				 "make those that only the checkpoint names"},
			{.id = OPT_AGAIN,
			 .name = "again",
			 .help = "After a restore that was killed: fill disks that have a part of "
				 "what the checkpoint has and nothing else"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_restore,
};
