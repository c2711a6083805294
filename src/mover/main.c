/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-mover: started for one checkpoint, restore or migration, and gone after it. */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "lib/command.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "mover/commands.h"
#include "mover/head.h"
#include "mover/operation.h"
#include "mover/steps.h"
#include "mover/tell.h"

#define DOWNTIME_MS 300

enum {
	OPT_DIR = HEAD_OPTIONS,
	OPT_LIVE,
	OPT_STOP,
	OPT_INCREMENTAL,
	OPT_COMPRESS,
	OPT_DOWNTIME,
	OPT_MAX_PAUSE,
	OPT_THROTTLE,
	OPT_SUSPEND,
	OPT_CONFIG,
	OPT_IMAGE,
	OPT_AT,
	OPT_LAZY,
	OPT_CLOCK,
	OPT_PAUSED,
	OPT_FORCE,
	OPT_TRACK,
	OPT_AGAIN,
	OPT_STEPS,
	OPT_DIGEST,
};

struct request {
	struct checkpoint_request checkpoint;
	struct restore_request restore;
	const char *config;
	bool in_steps;
	struct steps steps;
	struct head head; /* a signal: the operation ends, the VM runs on */
	struct progress progress;
};

static int parse_option(void *arg, int opt, const char *value, struct error *err)
{
	struct request *r = arg;

	switch (opt) {
	case OPT_DIR:
		r->checkpoint.dir = r->restore.dir = value;
		return 0;
	case OPT_LIVE:
	case OPT_STOP:
		r->checkpoint.live = opt == OPT_LIVE;
		return 0;
	case OPT_INCREMENTAL:
		r->checkpoint.incremental = true;
		return 0;
	case OPT_TRACK:
		r->checkpoint.track = true;
		return 0;
	case OPT_COMPRESS:
		return compression_parse(value, &r->checkpoint.compression, err);
	case OPT_DOWNTIME:
		return parse_uint(value, "downtime", 1, 3600000, &r->checkpoint.downtime_ms, err);
	case OPT_MAX_PAUSE:
		return parse_uint(value, "longest pause", 1, 3600000, &r->checkpoint.max_pause_ms,
				  err);
	case OPT_THROTTLE:
		r->checkpoint.throttle = true;
		return 0;
	case OPT_SUSPEND:
		r->checkpoint.leave_paused = true;
		return 0;
	case OPT_STEPS:
		r->in_steps = true;
		return 0;
	case OPT_DIGEST:
		r->restore.digest = value;
		return 0;
	case OPT_CONFIG:
		r->config = value;
		return 0;
	case OPT_IMAGE:
		r->checkpoint.image = value;
		return 0;
	case OPT_AT:
		return parse_u64(value, "epoch", 1, INT64_MAX, &r->restore.epoch, err);
	case OPT_LAZY:
		r->restore.lazy = true;
		return 0;
	case OPT_CLOCK:
		return head_clock(value, &r->restore.elapsed, err);
	case OPT_FORCE:
		r->restore.force = true;
		return 0;
	case OPT_PAUSED:
		r->restore.leave_paused = true;
		return 0;
	default:
		r->restore.again = true;
		return 0;
	}
}

static void show_progress(void *arg, const struct progress_now *now)
{
	const struct show_now show = {
		.phase = now->what, .done = now->done, .total = now->total, .rate = now->rate};

	show_now(arg, &show);
}

/* 0; 1 after --help. */
static int parse(const struct command *cmd, int argc, char **argv, struct request *r,
		 struct error *err)
{
	int rc;

	r->head.cmd = cmd;
	rc = head_parse(&r->head, argc, argv, parse_option, r, err);
	if (rc == 0 && (!r->head.control || !r->restore.dir))
		rc = error_set(err, -EINVAL, "--control and --dir must be given");
	if (rc == 0 && !r->checkpoint.live &&
	    (r->checkpoint.throttle || r->checkpoint.max_pause_ms))
		rc = error_set(err, -EINVAL, "--throttle and --max-pause are for --live");
	r->progress = (struct progress){.cancel = &r->head.cancel, .arg = &r->head.show};
	if (r->head.show.how != SHOW_NONE)
		r->progress.report = show_progress;
	r->checkpoint.progress = r->restore.progress = &r->progress;
	r->checkpoint.control = r->restore.control = r->head.control;
	return rc;
}

static int finish(int rc, struct request *r, json_t *report, void (*tell)(const json_t *report),
		  const struct error *err)
{
	head_end(&r->head, rc);
	if (rc < 0)
		return head_failed(&r->head, rc, err);
	tell_warnings(report);
	if (!r->head.json) {
		tell(report);
	} else {
		json_dumpf(report, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(report);
	return 0;
}

static int run_checkpoint(const struct command *cmd, int argc, char **argv)
{
	struct request r = {.checkpoint = {.downtime_ms = DOWNTIME_MS}};
	json_t *config = NULL, *report = NULL;
	json_error_t reason;
	struct error err;
	int rc = parse(cmd, argc, argv, &r, &err);

	if (rc == 0 && r.config) {
		config =
			json_load_file(r.config, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &reason);
		if (!config)
			rc = error_set(&err, -EINVAL, "%s:%d: %s", r.config, reason.line,
				       reason.text);
	}
	if (rc)
		return rc > 0 ? 0 : head_fail(&r.head, EXIT_USAGE, &err);
	r.checkpoint.config = config;
	if (r.in_steps) {
		steps_init(&r.steps, STDIN_FILENO, STDOUT_FILENO, r.checkpoint.leave_paused,
			   &r.head.cancel);
		r.checkpoint.steps = &r.steps;
		r.progress.pulse = &r.steps.pulse;
	}
	rc = head_begin(&r.head, &err);
	if (rc == 0 && r.in_steps)
		rc = steps_start(&r.steps, &err);
	if (rc == 0)
		rc = operation_checkpoint(&r.checkpoint, &report, &err);
	if (r.in_steps)
		rc = steps_end(&r.steps, rc, report, &err);
	json_decref(config);
	return finish(rc, &r, report, tell_checkpoint, &err);
}

static int run_restore(const struct command *cmd, int argc, char **argv)
{
	struct request r = {0};
	json_t *report = NULL;
	struct error err;
	int rc = parse(cmd, argc, argv, &r, &err);

	if (rc)
		return rc > 0 ? 0 : head_fail(&r.head, EXIT_USAGE, &err);
	rc = head_begin(&r.head, &err);
	if (rc == 0)
		rc = operation_restore(&r.restore, &report, &err);
	return finish(rc, &r, report, tell_restore, &err);
}

#define COMMON_OPTIONS                                                                               \
	{HEAD_CONTROL, "control", 0, "SOCKET", "Control socket of the VMM; must be given",           \
	 COMPLETE_FILE},                                                                             \
		{OPT_DIR, "dir", 0, "DIR", "Folder of the checkpoint; must be given", COMPLETE_DIR}, \
		SHOW_OPTION(HEAD_PROGRESS),                                                          \
	{                                                                                            \
		HEAD_JSON, "json", 0, NULL, "Print what it took as JSON", 0                          \
	}

static const struct command checkpoint = {
	.name = "checkpoint",
	.args = "",
	.summary = "Write a checkpoint of a VM",
	.details = "The VM is paused while its memory is written, or with --live only for the last "
		   "of it, and runs\non after that; also when this fails or is killed.",
	.options =
		(const struct option_desc[]){
			COMMON_OPTIONS,
			{OPT_STOP, "stop", 0, NULL, "Pause the VM for all of it (default)", 0},
			{OPT_LIVE, "live", 0, NULL, "Let the VM run while most is written", 0},
			{OPT_DOWNTIME, "downtime", 0, "MS",
			 "Pause that --live aims for, in milliseconds (default: 300)", 0},
			{OPT_MAX_PAUSE, "max-pause", 0, "MS",
			 "With --live: fail when it would be longer (default: as long as it takes)",
			 0},
			{OPT_THROTTLE, "throttle", 0, NULL,
			 "With --live: slow the vCPUs down that write faster than their memory is "
			 "written, if it does not come to an end otherwise",
			 0},
			{OPT_INCREMENTAL, "incremental", 0, NULL,
			 "Only what differs from the newest epoch, if there is one", 0},
			{OPT_TRACK, "track", 0, NULL,
			 "Have the VM log what it writes, for the next --incremental: that costs "
			 "it a "
			 "little, and the next one need not compare all memory",
			 0},
			{OPT_COMPRESS, "compress", 0, "KIND", "none (default), lz4 or zstd", 0},
			{OPT_SUSPEND, "suspend", 0, NULL,
			 "Leave the VM paused once the checkpoint is safe", 0},
			{OPT_STEPS, "steps", 0, NULL,
			 "Be told by lines of JSON when to go on, and tell so: a part of a "
			 "checkpoint of many VMs",
			 0},
			{OPT_CONFIG, "config", 0, "FILE",
			 "JSON to keep with it, say how to start the VM again", COMPLETE_FILE},
			{OPT_IMAGE, "image", 0, "DIGEST",
			 "Digest of the guest's image to keep with it", 0},
			{0}},
	.run = run_checkpoint,
};

static const struct command restore = {
	.name = "restore",
	.args = "",
	.summary = "Restore a checkpoint into a VMM that was started with --incoming",
	.details = "The VMM has the same options as the one that was saved. After a failure it can "
		   "only be stopped.",
	.options =
		(const struct option_desc[]){
			COMMON_OPTIONS,
			{OPT_AT, "at", 0, "EPOCH", "Epoch to restore (default: the newest)", 0},
			{OPT_DIGEST, "digest", 0, "sha256:HEX",
			 "Refuse an epoch that has another digest", 0},
			{OPT_LAZY, "lazy", 0, NULL,
			 "Let the VM run at once and bring its memory as it is touched", 0},
			{OPT_CLOCK, "clock", 0, "KIND",
			 "frozen (default): the guest's clock goes on where "
			 "it stopped; elapsed: it shows the time that went by",
			 0},
			{OPT_PAUSED, "paused", 0, NULL,
			 "Leave the VM paused; it can be resumed by its control socket, with "
			 "--lazy also while its memory is brought",
			 0},
			{OPT_FORCE, "force", 0, NULL,
			 "Put disks back also when they were written since: that is lost", 0},
			{OPT_AGAIN, "again", 0, NULL,
			 "Go on where a wisp-mover was that died: disks that it had begun to fill "
			 "are filled",
			 0},
			{0}},
	.run = run_restore,
};

static const struct command *const commands[] = {&checkpoint, &restore, &command_send,
						 &command_receive, NULL};

int main(int argc, char **argv)
{
	const struct command *cmd;
	int used;

	io_open_standard_fds();
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("wisp-mover %s\n", WISP_VERSION);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--man-options")) {
		command_man(stdout, "wisp-mover", commands);
		return 0;
	}
	cmd = command_find(commands, argc - 1, argv + 1, &used);
	if (cmd)
		return cmd->run(cmd, argc - 1 - used, argv + 1 + used);
	command_list(argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr, "wisp-mover",
		     commands, "");
	return argc == 2 && !strcmp(argv[1], "--help") ? 0 : EXIT_USAGE;
}
