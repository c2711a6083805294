/* SPDX-License-Identifier: Apache-2.0 */
/* wisp checkpoint, where the folder is that of a whole job. */

#include "cli/cmd-checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "job/checkpoints.h"
#include "lib/cleanup.h"
#include "lib/error.h"

static uint64_t longest_pause(const struct job_manifest *m)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < m->vms; i++)
		if (m->vm[i].pause_ns > longest)
			longest = m->vm[i].pause_ns;
	return longest;
}

static json_t *summary_json(const struct job_manifest *m)
{
	return json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "sequence",
			 (json_int_t)m->sequence, "job", m->job, "digest", m->digest, "cluster",
			 m->cluster, "created", m->created, "vms", (json_int_t)m->vms, "skew_ns",
			 (json_int_t)m->skew_ns, "pause_ns", (json_int_t)longest_pause(m));
}

static void summary_text(const struct job_manifest *m)
{
	printf("%10" PRIu64 "  %-16s %6zu %9.1f ms %9.1f ms  %s\n", m->sequence, m->cluster, m->vms,
	       (double)m->skew_ns / 1e6, (double)longest_pause(m) / 1e6, m->created);
}

/* One of a list; a damaged one has its error there. */
static int list_one(const struct checkpoints *c, uint64_t sequence, json_t *array)
{
	struct job_manifest m;
	struct error err;

	if (checkpoints_read(c, sequence, &m, &err) < 0) {
		if (array)
			json_array_append_new(array,
					      json_pack("{s:I, s:s}", "sequence",
							(json_int_t)sequence, "error", err.text));
		else
			printf("%10" PRIu64 "  %s\n", sequence, err.text);
		return 1;
	}
	if (array)
		json_array_append_new(array, summary_json(&m));
	else
		summary_text(&m);
	job_manifest_done(&m);
	return 0;
}

/* Those there are. 0 or -errno; close c in any case. */
static int begin(const struct checkpoint_args *args, bool write, struct checkpoints *c,
		 uint64_t **sequence, size_t *n, struct error *err)
{
	int rc;

	*c = (struct checkpoints){.dir = -1, .lock = -1};
	rc = checkpoints_open(args->dir, write, c, err);
	return rc < 0 ? rc : checkpoints_list(c, sequence, n, err);
}

int checkpoint_job_list(const struct command *cmd, const struct checkpoint_args *args)
{
	CLEANUP_FREE uint64_t *sequence = NULL;
	json_t *array = NULL;
	struct checkpoints c;
	struct error err;
	size_t n = 0;
	int code = 0, rc = begin(args, false, &c, &sequence, &n, &err);

	if (rc == 0 && args->json)
		array = json_array();
	else if (rc == 0 && n)
		printf("%10s  %-16s %6s %12s %12s  %s\n", "CHECKPOINT", "CLUSTER", "VMS", "SKEW",
		       "PAUSE", "CREATED");
	for (size_t i = 0; rc == 0 && i < n; i++)
		code |= list_one(&c, sequence[i], array);
	checkpoints_close(&c);
	if (array)
		cli_print_json(array);
	return rc < 0 ? cli_fail(cmd, 1, &err) : code;
}

/* The sum of what the VMs' kernels counted. */
static void show_tcp(const json_t *tcp)
{
	json_int_t sent = 0, again = 0;
	const char *name;
	json_t *vm;

	if (!json_is_object(tcp))
		return;
	json_object_foreach (json_object_get(tcp, "vms"), name, vm) {
		sent += json_integer_value(json_object_get(vm, "sent"));
		again += json_integer_value(json_object_get(vm, "retransmitted"));
	}
	printf("%-12s %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
	       " segments sent again within %.1f s\n",
	       "tcp", again, sent, (double)json_integer_value(json_object_get(tcp, "ms")) / 1e3);
}

static void show_text(const struct job_manifest *m)
{
	printf("%-12s %" PRIu64 "\n", "checkpoint", m->sequence);
	printf("%-12s %s\n", "job", m->job);
	if (m->parent)
		printf("%-12s %" PRIu64 "\n", "after", m->parent);
	printf("%-12s %s\n", "cluster", m->cluster);
	printf("%-12s %s\n", "created", m->created);
	printf("%-12s %s\n", "digest", m->digest);
	printf("%-12s %s\n", "environment", m->environment_digest);
	printf("%-12s %s\n", "subnet", m->subnet);
	printf("%-12s %.1f ms\n", "skew", (double)m->skew_ns / 1e6);
	show_tcp(json_object_get(m->report, "tcp"));
	for (size_t i = 0; i < m->tasks; i++)
		printf("%-12s %s in %s, after %" PRIu64 " and %" PRIu64 " bytes of output\n",
		       "task", m->task[i].id, m->task[i].vm, m->task[i].out, m->task[i].err);
	printf("\n%-20s %-15s %-20s %6s %12s  %s\n", "VM", "ADDRESS", "NODE", "EPOCH", "PAUSE",
	       "DIGEST");
	for (size_t i = 0; i < m->vms; i++)
		printf("%-20s %-15s %-20s %6" PRIu64 " %9.1f ms  %s\n", m->vm[i].name,
		       m->vm[i].address, m->vm[i].node, m->vm[i].epoch,
		       (double)m->vm[i].pause_ns / 1e6, m->vm[i].digest);
}

int checkpoint_job_show(const struct command *cmd, const struct checkpoint_args *args)
{
	struct checkpoints c;
	struct job_manifest m;
	struct error err;
	int rc = checkpoints_open(args->dir, false, &c, &err);

	if (rc < 0)
		return cli_fail(cmd, 1, &err);
	rc = checkpoints_read(&c, args->at, &m, &err);
	checkpoints_close(&c);
	if (rc < 0)
		return cli_fail(cmd, 1, &err);
	if (args->json)
		cli_print_json(json_incref(m.json));
	else
		show_text(&m);
	job_manifest_done(&m);
	return 0;
}

/* -------- verify -------- */

struct verifying {
	const struct command *cmd;
	const struct checkpoints *c;
	struct checkpoints_verified verified;
	json_t *array; /* or NULL */
};

/* What is wrong with a checkpoint, one line or many. */
static void tell_wrong(const struct verifying *v, json_t *errors, const struct error *err)
{
	cli_fail(v->cmd, 1, err);
	json_array_append_new(errors, json_string(err->text));
}

/* All its VMs, also when one is damaged: what is left can be known. */
static int verify_one(struct verifying *v, uint64_t sequence)
{
	json_t *errors = json_array();
	struct job_manifest m = {0};
	struct error err;
	uint64_t bytes = 0, some;
	bool bad;

	if (checkpoints_read(v->c, sequence, &m, &err) < 0)
		tell_wrong(v, errors, &err);
	for (size_t i = 0; i < m.vms; i++) {
		if (checkpoints_verify_vm(v->c, &m.vm[i], &v->verified, NULL, &some, &err) < 0) {
			error_prefix(&err, -1, "checkpoint %" PRIu64 ", VM %s", sequence,
				     m.vm[i].name);
			tell_wrong(v, errors, &err);
		}
		bytes += some;
	}
	bad = json_array_size(errors);
	if (v->array)
		json_array_append_new(v->array, json_pack("{s:I, s:b, s:I, s:I, s:O}", "sequence",
							  (json_int_t)sequence, "ok", !bad, "vms",
							  (json_int_t)m.vms, "bytes",
							  (json_int_t)bytes, "errors", errors));
	else if (!bad)
		printf("checkpoint %" PRIu64 ": ok, %zu VMs, %" PRIu64 " bytes more\n", sequence,
		       m.vms, bytes);
	job_manifest_done(&m);
	json_decref(errors);
	return bad;
}

int checkpoint_job_verify(const struct command *cmd, const struct checkpoint_args *args)
{
	CLEANUP_FREE uint64_t *sequence = NULL;
	struct checkpoints c;
	struct error err;
	struct verifying v = {.cmd = cmd, .c = &c};
	size_t n = 0;
	int code = 0, rc = begin(args, false, &c, &sequence, &n, &err);

	if (rc == 0 && !n)
		rc = error_set(&err, -ENOENT, "%s has no checkpoint of a whole job", args->dir);
	if (rc == 0 && args->json)
		v.array = json_array();
	if (rc == 0 && args->at)
		code = verify_one(&v, args->at);
	for (size_t i = 0; rc == 0 && !args->at && i < n; i++)
		code |= verify_one(&v, sequence[i]);
	if (v.array)
		cli_print_json(v.array);
	free(v.verified.seen);
	checkpoints_close(&c);
	return rc < 0 ? cli_fail(cmd, 1, &err) : code;
}

/* -------- merge and prune -------- */

int checkpoint_job_merge(const struct command *cmd, const struct checkpoint_args *args)
{
	struct error err;

	error_set(&err, -EINVAL,
		  "%s has the checkpoints of a whole job: give the folder of one of its VMs "
		  "(%s/" CHECKPOINTS_VMS "/NAME), or prune all of it",
		  args->dir, args->dir);
	return cli_fail(cmd, EXIT_USAGE, &err);
}

static void print_removed(const struct checkpoint_args *args,
			  const struct checkpoints_removed *removed)
{
	json_t *list = json_array();

	for (size_t i = 0; i < removed->n; i++)
		json_array_append_new(list, json_integer((json_int_t)removed->sequence[i]));
	if (args->json) {
		cli_print_json(json_pack("{s:o, s:i, s:i}", "removed", list, "epochs",
					 (int)removed->epochs, "merged", (int)removed->merged));
		return;
	}
	printf("%zu checkpoints removed; of their VMs %u epochs removed, %u merged\n", removed->n,
	       removed->epochs, removed->merged);
	json_decref(list);
}

int checkpoint_job_prune(const struct command *cmd, const struct checkpoint_args *args)
{
	struct checkpoints_removed removed = {0};
	struct checkpoints c;
	struct error err;
	int rc;

	if (!args->keep) {
		error_set(&err, -EINVAL, "say by --keep how many checkpoints shall stay");
		return cli_fail(cmd, EXIT_USAGE, &err);
	}
	rc = checkpoints_open(args->dir, true, &c, &err);
	if (rc < 0)
		return cli_fail(cmd, 1, &err);
	rc = checkpoints_prune(&c, args->keep, NULL, &removed, &err);
	checkpoints_close(&c);
	if (rc == 0)
		print_removed(args, &removed);
	free(removed.sequence);
	return rc < 0 ? cli_fail(cmd, 1, &err) : 0;
}
