/* SPDX-License-Identifier: Apache-2.0 */
/* wisp cluster restart: a cluster goes on from a checkpoint, wherever there is room for it. */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/job-former.h"
#include "cli/job-start.h"
#include "cli/run-nodes.h"
#include "cli/run-start.h"
#include "job/checkpoints.h"
#include "job/nodelist.h"
#include "job/walltime.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"

enum {
	OPT_AT = 1,
	OPT_NODES,
	OPT_HOSTS,
	OPT_LOST,
	OPT_STOP,
	OPT_DETACH,
	OPT_SOCKET,
	OPT_LAUNCHER,
	OPT_QUIET,
	OPT_JSON
};

struct options {
	json_t *nodes, *lost;
	bool stop;
	const char *socket, *launcher;
	uint64_t at; /* 0: the newest */
	struct run_view view;
};

static int set(void *arg, int id, const char *value, struct error *err)
{
	struct options *o = arg;

	switch (id) {
	case OPT_AT:
		return parse_u64(value, "--at", 1, UINT64_MAX, &o->at, err);
	case OPT_NODES:
		return nodelist_add(o->nodes, value, err);
	case OPT_HOSTS:
		return nodelist_add_file(o->nodes, value, err);
	case OPT_LOST:
		return nodelist_add(o->lost, value, err);
	case OPT_STOP:
		o->stop = true;
		return 0;
	case OPT_DETACH:
		o->view.detach = true;
		return 0;
	case OPT_SOCKET:
		o->socket = value;
		return 0;
	case OPT_LAUNCHER:
		o->launcher = value;
		return 0;
	case OPT_QUIET:
		o->view.quiet = true;
		return 0;
	default:
		o->view.json = true;
		return 0;
	}
}

/* -------- the description -------- */

/* Of each VM where its epoch is; folders are below the job's. */
static json_t *sources(const struct job_manifest *m, const char *folder)
{
	json_t *all = json_object();

	for (size_t i = 0; i < m->vms; i++)
		json_object_set_new(all, m->vm[i].name,
				    json_pack("{s:o, s:I, s:s}", "folder",
					      json_sprintf("%s/%s", folder, m->vm[i].folder),
					      "epoch", (json_int_t)m->vm[i].epoch, "digest",
					      m->vm[i].digest));
	return all;
}

/* A spec of what the coordinator was started with then, and what the manifest has of it. */
static int describe(const struct job_manifest *m, const char *folder, const json_t *lost,
		    json_t **ret, struct error *err)
{
	const json_t *then = json_object_get(m->report, "spec");
	json_t *spec, *former = NULL;
	int r;

	if (!json_is_object(then))
		return error_set(err, -ENODATA,
				 "checkpoint %llu of %s does not say how its job was started",
				 (unsigned long long)m->sequence, folder);
	r = job_former(m, lost, &former, err);
	if (r)
		return error_prefix(err, r, "checkpoint %llu of %s",
				    (unsigned long long)m->sequence, folder);
	json_object_set_new(former, "folder", json_string(folder));
	spec = json_deep_copy(then);
	json_object_set_new(spec, "former", former);
	json_object_set_new(spec, "digest", json_string(m->environment_digest));
	json_object_set_new(spec, "environment", json_deep_copy(m->environment));
	json_object_set_new(spec, "documents", json_deep_copy(m->documents));
	json_object_set_new(spec, "restore", sources(m, folder));
	json_object_set_new(spec, "job", json_string(m->job));
	json_object_set(spec, "used-ms", json_object_get(m->report, "used_ms"));
	*ret = spec;
	return 0;
}

/* Before anything of the saved cluster is ended. */
static int check_walltime(const struct job_manifest *m, struct error *err)
{
	json_int_t used = json_integer_value(json_object_get(m->report, "used_ms"));
	uint64_t left;
	int r = walltime_left(m->environment, used > 0 ? (uint64_t)used : 0, &left, err);

	return r ? error_prefix(err, r, "checkpoint %llu", (unsigned long long)m->sequence) : 0;
}

static int read_checkpoint(const char *path, const struct options *o, json_t **ret,
			   struct error *err)
{
	struct checkpoints c = {.dir = -1, .lock = -1};
	CLEANUP_FREE char *folder = realpath(path, NULL);
	struct job_manifest m;
	int r;

	if (!folder)
		return error_errno(err, -errno, "cannot find %s", path);
	r = checkpoints_open(folder, false, &c, err);
	if (!r)
		r = checkpoints_read(&c, o->at, &m, err);
	if (!r) {
		r = check_walltime(&m, err);
		if (!r)
			r = describe(&m, folder, o->lost, ret, err);
		job_manifest_done(&m);
	}
	checkpoints_close(&c);
	return r;
}

/* -------- the command -------- */

static int complete(struct options *o, json_t *spec, struct error *err)
{
	const struct job_daemon wanted = {o->socket, o->launcher, !json_array_size(o->nodes)};
	CLEANUP_FREE char *socket = NULL;
	json_t *facts = NULL, *addresses = NULL;
	bool self = true;
	int r = job_find_daemon(&wanted, &socket, &facts, err);

	if (!r)
		r = run_nodes_complete(o->nodes, facts, &self, err);
	if (!r)
		r = run_nodes_addresses(o->nodes, &addresses, err);
	json_decref(facts);
	if (r)
		return r;
	job_former_nodes(spec, o->nodes);
	json_object_set_new(spec, "socket", json_string(socket));
	json_object_set(spec, "nodes", o->nodes);
	json_object_set_new(spec, "addresses", addresses);
	json_object_set_new(spec, "self", json_boolean(self));
	json_object_set_new(spec, "detach", json_boolean(o->view.detach));
	return 0;
}

static int restart(const struct command *cmd, struct options *o, const char *folder)
{
	json_t *spec = NULL;
	struct error err;
	int code, r = read_checkpoint(folder, o, &spec, &err);

	if (!r)
		r = job_former_stop(spec, o->stop, &err);
	if (!r)
		r = complete(o, spec, &err);
	code = r ? cli_fail(cmd, EXIT_FAILURE, &err) : run_start(cmd, spec, &o->view);
	json_decref(spec);
	return code;
}

static int run_restart(const struct command *cmd, int argc, char **argv)
{
	struct options o = {.nodes = json_array(), .lost = json_array()};
	struct option_parser parser;
	struct error err;
	int code, r;

	option_start(&parser, cmd, argc, argv);
	r = option_each(&parser, set, &o, &err);
	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "give the folder of a cluster's checkpoints");
	if (r)
		code = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	else
		code = restart(cmd, &o, parser.argv[0]);
	json_decref(o.nodes);
	json_decref(o.lost);
	return code;
}

const struct command cmd_cluster_restart = {
	.name = "cluster restart",
	.args = "FOLDER",
	.summary = "Let a cluster go on from a checkpoint",
	.details = "Its VMs are restored at the nodes that are given, in another placement if need "
		   "be, and go "
		   "on together; its program is attached again. The environment has to come to the "
		   "same "
		   "by the rules of these nodes. What is left of the cluster that was saved ends "
		   "first: all nodes that it had, to which VMs may have moved, have to answer, or "
		   "to be named by --lost. What the job had used of its walltime by then counts. "
		   "Otherwise as wisp run.",
	.options =
		(const struct option_desc[]){
			{OPT_AT, "at", 0, "N", "Checkpoint N (default: the newest)", 0},
			{OPT_NODES, "nodes", 0, "LIST",
			 "Nodes, NAME or NAME@HOST[:PORT] with commas, also n[1-4] (default: this "
			 "machine)",
			 0},
			{OPT_HOSTS, "hosts", 0, "FILE",
			 "A file that names them, one or several in a line", COMPLETE_FILE},
			{OPT_LOST, "lost", 0, "LIST",
			 "Nodes of the saved cluster that do not answer, and run none of its VMs "
			 "any more",
			 0},
			{OPT_STOP, "stop", 0, NULL,
			 "End the saved cluster first, where its coordinator runs on this machine",
			 0},
			{OPT_DETACH, "detach", 'd', NULL, "Leave when the program goes on", 0},
			{OPT_SOCKET, "socket", 0, "PATH",
			 "Of this node's daemon (default: root's where it runs, else yours)",
			 COMPLETE_FILE},
			JOB_LAUNCHER_ROW(OPT_LAUNCHER),
			{OPT_QUIET, "quiet", 'q', NULL, "Do not tell the stages", 0},
			{OPT_JSON, "json", 0, NULL, "Tell them as JSON, on standard error", 0},
			{0}},
	.complete = COMPLETE_DIR,
	.run = run_restart,
};
