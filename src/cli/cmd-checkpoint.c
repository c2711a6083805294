/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp checkpoint: lists, shows, verifies, merges and prunes the epochs in a folder of one VM; and
 * knows one of a whole job.
 */

#include "cli/cmd-checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "job/checkpoints.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "mover/epoch.h"
#include "mover/merge.h"
#include "mover/verify.h"

enum { OPT_JSON = 1, OPT_AT, OPT_KEEP };

static int parse_option(struct checkpoint_args *r, int opt, const char *value, struct error *err)
{
	switch (opt) {
	case OPT_JSON:
		r->json = true;
		return 0;
	case OPT_AT:
		return parse_u64(value, "epoch", 1, INT64_MAX, &r->at, err);
	default:
		return parse_uint(value, "number of epochs", 1, UINT32_MAX, &r->keep, err);
	}
}

/* Parses and opens the folder of a VM, or does it by job. 0; else exit with -1 - the result. */
static int begin(const struct command *cmd, int argc, char **argv, bool write,
		 checkpoint_job_fn *job, struct checkpoint_args *r)
{
	struct option_parser options;
	struct error err;
	const char *value;
	int opt;

	*r = (struct checkpoint_args){0};
	option_start(&options, cmd, argc, argv);
	while ((opt = option_next(&options, &value, &err)) > 0) {
		if (opt == OPTION_HELP)
			return -1;
		opt = parse_option(r, opt, value, &err);
		if (opt < 0)
			break;
	}
	if (opt == 0 && options.argc != 1)
		opt = error_set(&err, -EINVAL, "give one folder of checkpoints");
	if (opt < 0)
		return -1 - cli_fail(cmd, EXIT_USAGE, &err);
	r->dir = options.argv[0];
	if (checkpoints_are_there(r->dir))
		return -1 - job(cmd, r);
	if (write && access(r->dir, F_OK) < 0)
		opt = error_errno(&err, -errno, "cannot open checkpoint folder %s", r->dir);
	if (opt == 0)
		opt = store_open(r->dir, write, &r->store, &err);
	return opt < 0 ? -1 - cli_fail(cmd, 1, &err) : 0;
}

static uint64_t bytes_of(const struct manifest *m)
{
	uint64_t bytes = m->index_size;
	const char *name;
	json_t *file;

	for (uint32_t i = 0; i < m->files; i++)
		bytes += m->file_size[i];
	json_object_foreach (json_object_get(m->json, "files"), name, file)
		bytes += (uint64_t)json_integer_value(json_object_get(file, "data"));
	return bytes;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static json_t *summary_json(const struct manifest *m)
{
	return json_pack(
		"{s:I, s:o, s:O, s:O, s:O, s:I, s:I}", "epoch", (json_int_t)m->epoch, "digest",
		manifest_digest_json(m->digest), "kind", json_object_get(m->json, "kind"), "parent",
		json_object_get(m->json, "parent"), "created", json_object_get(m->json, "created"),
		"memory", (json_int_t)m->memory, "bytes", (json_int_t)bytes_of(m));
}

static void summary_text(const struct manifest *m)
{
	char parent[24] = "-", memory[32];

	if (m->parent_epoch)
		snprintf(parent, sizeof(parent), "%" PRIu64, m->parent_epoch);
	printf("%6" PRIu64 "  %-11s %6s  %11s %10.1f MiB  %s\n", m->epoch, text_of(m->json, "kind"),
	       parent, format_size(m->memory, memory, sizeof(memory)),
	       (double)bytes_of(m) / (1 << 20), text_of(m->json, "created"));
}

/* One epoch of a list; a damaged one has its error there. */
static int list_one(const struct checkpoint_args *r, uint64_t epoch, json_t *array)
{
	struct manifest m;
	struct error err;

	if (epoch_manifest(&r->store, epoch, &m, &err) < 0) {
		if (array)
			json_array_append_new(array,
					      json_pack("{s:I, s:s}", "epoch", (json_int_t)epoch,
							"error", err.text));
		else
			printf("%6" PRIu64 "  %s\n", epoch, err.text);
		return 1;
	}
	if (array)
		json_array_append_new(array, summary_json(&m));
	else
		summary_text(&m);
	manifest_done(&m);
	return 0;
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	struct checkpoint_args r;
	struct error err;
	json_t *array = NULL;
	size_t n;
	int code = 0, rc = begin(cmd, argc, argv, false, checkpoint_job_list, &r);

	if (rc < 0)
		return -1 - rc;
	if (store_epochs(&r.store, &epochs, &n, &err) < 0) {
		store_close(&r.store);
		return cli_fail(cmd, 1, &err);
	}
	if (r.json)
		array = json_array();
	else if (n)
		printf("%6s  %-11s %6s  %11s %14s  %s\n", "EPOCH", "KIND", "PARENT", "MEMORY",
		       "STORED", "CREATED");
	for (size_t i = 0; i < n; i++)
		code |= list_one(&r, epochs[i], array);
	if (array)
		cli_print_json(array);
	store_close(&r.store);
	return code;
}

const struct command cmd_checkpoint_list = {
	.name = "checkpoint list",
	.args = "DIR",
	.summary = "List the epochs of a checkpoint folder",
	.details = "Of a folder with the checkpoints of a whole job these are listed: skew is the "
		   "time between the first and the last VM that was cut, pause the longest.",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}},
	.complete = COMPLETE_DIR,
	.run = run_list,
};

/* The epoch that --at names, or the newest. */
static int chosen(const struct checkpoint_args *r, uint64_t *ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n;
	int rc = store_epochs(&r->store, &epochs, &n, err);

	if (rc == 0 && !n)
		rc = error_set(err, -ENOENT, "%s has no checkpoint", r->store.path);
	if (rc == 0)
		*ret = r->at ? r->at : epochs[n - 1];
	return rc;
}

static void show_text(const struct manifest *m)
{
	const json_t *report = json_object_get(m->json, "report");
	json_t *files = json_object_get(m->json, "files"), *value;
	const char *key;
	char size[32];

	printf("%-12s %" PRIu64 "\n", "epoch", m->epoch);
	printf("%-12s %s\n", "kind", text_of(m->json, "kind"));
	if (m->parent_epoch)
		printf("%-12s %" PRIu64 "\n", "parent", m->parent_epoch);
	printf("%-12s %s\n", "identity", m->identity);
	printf("%-12s " MANIFEST_DIGEST "%s\n", "digest", m->digest);
	printf("%-12s %s\n", "created", text_of(m->json, "created"));
	printf("%-12s %s\n", "image", text_of(m->json, "image"));
	printf("%-12s %s\n", "memory", format_size(m->memory, size, sizeof(size)));
	printf("%-12s %" PRIu64 " bytes\n", "state", m->state);
	printf("%-12s %" PRIu64 " bytes in %zu files\n", "stored", bytes_of(m),
	       json_object_size(files));
	json_object_foreach (files, key, value)
		if (json_object_get(value, "sum"))
			printf("%-12s %s, %s\n", "disk", key + strlen(MANIFEST_DISK),
			       format_size(
				       (uint64_t)json_integer_value(json_object_get(value, "size")),
				       size, sizeof(size)));
	printf("\nWhat it took to write:\n");
	json_object_foreach ((json_t *)report, key, value) {
		CLEANUP_FREE char *text = json_dumps(value, JSON_ENCODE_ANY);

		printf("  %-12s %s\n", key, text ? text : "?");
	}
}

static int run_show(const struct command *cmd, int argc, char **argv)
{
	struct checkpoint_args r;
	struct manifest m;
	struct error err;
	uint64_t epoch;
	int rc = begin(cmd, argc, argv, false, checkpoint_job_show, &r);

	if (rc < 0)
		return -1 - rc;
	rc = chosen(&r, &epoch, &err);
	if (rc == 0)
		rc = epoch_manifest(&r.store, epoch, &m, &err);
	store_close(&r.store);
	if (rc < 0)
		return cli_fail(cmd, 1, &err);
	if (r.json)
		cli_print_json(json_incref(m.json));
	else
		show_text(&m);
	manifest_done(&m);
	return 0;
}

#define AT_OPTION(what)                                                    \
	{                                                                  \
		OPT_AT, "at", 0, "EPOCH", what " (default: the newest)", 0 \
	}

const struct command cmd_checkpoint_show = {
	.name = "checkpoint show",
	.args = "DIR",
	.summary = "Show what an epoch of a checkpoint folder holds, and what it took to write",
	.details = "Of a whole job: its VMs, their epochs, and the programs that ran.",
	.options =
		(const struct option_desc[]){AT_OPTION("Epoch (of a job: checkpoint) to show"),
					     {OPT_JSON, "json", 0, NULL, "Print the manifest", 0},
					     {0}},
	.complete = COMPLETE_DIR,
	.run = run_show,
};

static int verify_one(const struct command *cmd, const struct checkpoint_args *r, uint64_t epoch,
		      json_t *array)
{
	struct error err;
	uint64_t bytes = 0;
	int rc = verify_epoch(&r->store, epoch, NULL, &bytes, &err);

	if (array && rc < 0)
		json_array_append_new(array,
				      json_pack("{s:I, s:b, s:s}", "epoch", (json_int_t)epoch, "ok",
						0, "error", err.text));
	else if (array)
		json_array_append_new(array,
				      json_pack("{s:I, s:b, s:I}", "epoch", (json_int_t)epoch, "ok",
						1, "bytes", (json_int_t)bytes));
	else if (rc == 0)
		printf("epoch %" PRIu64 ": ok, %" PRIu64 " bytes\n", epoch, bytes);
	if (rc < 0)
		cli_fail(cmd, 1, &err);
	return rc < 0;
}

static int run_verify(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	struct checkpoint_args r;
	struct error err;
	json_t *array = NULL;
	size_t n;
	int code = 0, rc = begin(cmd, argc, argv, false, checkpoint_job_verify, &r);

	if (rc < 0)
		return -1 - rc;
	rc = store_epochs(&r.store, &epochs, &n, &err);
	if (rc == 0 && !n)
		rc = error_set(&err, -ENOENT, "%s has no checkpoint", r.store.path);
	if (rc == 0 && r.json)
		array = json_array();
	if (rc == 0 && r.at)
		code = verify_one(cmd, &r, r.at, array);
	for (size_t i = 0; rc == 0 && !r.at && i < n; i++)
		code |= verify_one(cmd, &r, epochs[i], array);
	if (array)
		cli_print_json(array);
	store_close(&r.store);
	return rc < 0 ? cli_fail(cmd, 1, &err) : code;
}

const struct command cmd_checkpoint_verify = {
	.name = "checkpoint verify",
	.args = "DIR",
	.summary = "Check every byte of the epochs of a checkpoint folder",
	.details = "One flipped bit anywhere is found. An incremental epoch is as good as the "
		   "epochs it is based on:\nwithout --at all are checked. Of a whole job all "
		   "epochs that its checkpoints name are, with what these are based on, and "
		   "that they are the ones meant.",
	.options =
		(const struct option_desc[]){
			{OPT_AT, "at", 0, "EPOCH",
			 "Epoch (of a job: checkpoint) to check (default: all)", 0},
			{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_verify,
};

/* Says what a merge or prune did. */
static void print_report(const struct checkpoint_args *r, const struct merge_report *report)
{
	json_t *removed = json_array();

	for (size_t i = 0; i < report->nremoved; i++)
		json_array_append_new(removed, json_integer((json_int_t)report->removed[i]));
	if (r->json) {
		cli_print_json(
			json_pack("{s:i, s:o}", "merged", (int)report->merged, "removed", removed));
		return;
	}
	printf("%u merged, %zu removed\n", report->merged, report->nremoved);
	json_decref(removed);
}

static int run_shorten(const struct command *cmd, int argc, char **argv, bool prune)
{
	struct merge_report report = {0};
	struct checkpoint_args r;
	struct error err;
	int rc = begin(cmd, argc, argv, true, prune ? checkpoint_job_prune : checkpoint_job_merge,
		       &r);

	if (rc < 0)
		return -1 - rc;
	if (!prune)
		rc = merge_epoch(&r.store, r.at, NULL, &report, &err);
	else if (r.keep)
		rc = merge_prune(&r.store, r.keep, NULL, &report, &err);
	else
		rc = error_set(&err, -EINVAL, "say by --keep how many epochs shall stay");
	store_close(&r.store);
	if (rc == 0)
		print_report(&r, &report);
	free(report.removed);
	if (rc < 0)
		return cli_fail(cmd, prune && !r.keep ? EXIT_USAGE : 1, &err);
	return 0;
}

static int run_merge(const struct command *cmd, int argc, char **argv)
{
	return run_shorten(cmd, argc, argv, false);
}

const struct command cmd_checkpoint_merge = {
	.name = "checkpoint merge",
	.args = "DIR",
	.summary = "Make an incremental epoch full and remove what it was based on",
	.details = "The epoch keeps its number, and epochs that are based on it stay valid. Epochs "
		   "that others need stay.\nKilled at any moment, it leaves everything restorable.",
	.options = (const struct option_desc[]){AT_OPTION("Epoch to make full"),
						{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
						{0}},
	.complete = COMPLETE_DIR,
	.run = run_merge,
};

static int run_prune(const struct command *cmd, int argc, char **argv)
{
	return run_shorten(cmd, argc, argv, true);
}

const struct command cmd_checkpoint_prune = {
	.name = "checkpoint prune",
	.args = "DIR",
	.summary = "Remove all but the newest epochs of a checkpoint folder",
	.details =
		"Epochs that stay and are based on one that goes are made full first. Of a whole "
		"job its newest checkpoints stay with the epochs they name, and everything else "
		"goes, also what checkpoints left that failed.",
	.options =
		(const struct option_desc[]){
			{OPT_KEEP, "keep", 0, "N",
			 "Number of epochs (of a job: checkpoints) that stay; must be given", 0},
			{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_prune,
};
