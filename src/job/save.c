/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cut: a checkpoint of all VMs of the cluster at one moment (docs/design/clusters.md). Each
 * step is one request to all nodes; whatever fails at any of them is given up at all, and the VMs
 * run on.
 */

#include "job/save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "job/checkpoints.h"
#include "job/save-folder.h"
#include "job/save-tcp.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"

#define RUN_ON_MS 60000u
#define ABORT_MS 30000u
#define TCP_MS 3000u	       /* agents answer at once, or not at all */
#define AGAIN_NS 1000000000ull /* what was lost at the cut is sent again within this time */

struct save {
	struct job *job;
	char *path;
	struct save_folder *folder;
	json_t *options;  /* of the first step: mode, incremental, compress, suspend */
	json_t *values;	  /* {VM: what its mover said} */
	json_t *steps;	  /* {STEP: ms} */
	json_t *tasks;	  /* as at the cut */
	uint64_t used_ms; /* of the walltime, at the cut */
	struct save_tcp tcp;
	struct loop_source *timer; /* until the next step */
	uint64_t since, began;
	size_t step;
	bool waits;	  /* for its folder: nothing has begun */
	bool asked;	  /* nodes, of the first step */
	bool whole;	  /* all is saved: what is left is to say so */
	bool were_paused; /* VMs, before it began */
	int code;	  /* of why */
	struct error why;
	const struct save_ops *ops;
	void *arg;
};

static void ask_step(struct save *s);
static void on_step(void *arg, const struct gather *answer);

typedef void step_fn(struct save *s, const struct gather *answer);
static step_fn merge, merge_cut, count_before, count_after;

/*
 * Each is asked of all nodes. One that may fail is told nothing of, and nothing depends on it. What
 * writes takes as long as there is to write: parts give up what does not get on, and the tree tells
 * of nodes that are lost.
 */
static const struct {
	const char *op, *name;
	unsigned ms;
	step_fn *take;
	uint64_t wait_ns; /* before it */
	bool running;	  /* only if the VMs are to run on */
	bool may_fail;
} steps[] = {
	{.op = "save", .name = "begin", .ms = NODES_NO_LIMIT, .take = merge},
	{.op = "tcp",
	 .name = "before",
	 .ms = TCP_MS,
	 .take = count_before,
	 .running = true,
	 .may_fail = true},
	{.op = "save", .name = "cut", .ms = NODES_NO_LIMIT, .take = merge_cut},
	{.op = "save", .name = "resume", .ms = NODES_NO_LIMIT, .take = merge, .running = true},
	{.op = "tcp",
	 .name = "after",
	 .ms = TCP_MS,
	 .take = count_after,
	 .wait_ns = AGAIN_NS,
	 .running = true,
	 .may_fail = true},
	{.op = "save", .name = "commit", .ms = NODES_NO_LIMIT, .take = merge},
};

static bool suspends(const struct save *s)
{
	return json_is_true(json_object_get(s->options, "suspend"));
}

/* -------- its end -------- */

static void save_free(struct save *s)
{
	nodes_forget(s->job->nodes, s);
	loop_remove(&s->timer);
	save_folder_destroy(s->folder);
	save_tcp_done(&s->tcp);
	json_decref(s->options);
	json_decref(s->values);
	json_decref(s->steps);
	json_decref(s->tasks);
	free(s->path);
	free(s);
}

/* Takes value. */
static void finish(struct save *s, int code, const char *reason, json_t *value)
{
	struct job *j = s->job;
	const struct save_ops *ops = s->ops;
	void *arg = s->arg;
	struct error why;

	snprintf(why.text, sizeof(why.text), "%s", reason);
	j->save = NULL;
	save_free(s);
	ops->over(arg, code, why.text, value);
	json_decref(value);
}

static void set_state(struct job *j, enum vm_state from, enum vm_state to)
{
	for (size_t i = 0; i < j->nvms; i++)
		if (j->vm[i].state == from)
			j->vm[i].state = to;
	job_changed(j);
}

/* -------- VMs that were to stay paused, and there is no checkpoint -------- */

static void ask_run_on(struct job *j, nodes_fn *fn, void *arg)
{
	CLEANUP_FREE char *to = job_holders(j);

	nodes_ask(j->nodes, json_pack("{s:s, s:s}", "op", "resume", "cluster", j->id), to,
		  RUN_ON_MS, fn, arg);
}

static void note_run_on(struct job *j, const struct gather *answer)
{
	j->save_stays = answer->code == -EHOSTDOWN;
	if (gather_is_good(answer))
		set_state(j, VM_PAUSED, VM_READY);
	else if (!j->save_stays)
		job_note(j,
			 "VMs stay paused, and nothing was saved: wisp cluster resume %s lets them "
			 "go on",
			 j->spec.name);
}

static void on_run_on(void *arg, const struct gather *answer)
{
	struct save *s = arg;

	note_run_on(s->job, answer);
	finish(s, s->code, s->why.text, NULL);
}

static void on_run_on_late(void *arg, const struct gather *answer)
{
	note_run_on(arg, answer);
}

/* s->code and s->why say why. */
static void end_failed(struct save *s)
{
	if (suspends(s) && !s->were_paused)
		ask_run_on(s->job, on_run_on, s);
	else
		finish(s, s->code, s->why.text, NULL);
}

/* All epochs are there, and the checkpoint is not. */
static void fail_whole(struct save *s, int code, const char *reason)
{
	s->code = code;
	snprintf(s->why.text, sizeof(s->why.text), "%s", reason);
	end_failed(s);
}

/* -------- given up -------- */

static void ask_abort(struct job *j, nodes_fn *fn, void *arg)
{
	CLEANUP_FREE char *to = job_holders(j);

	nodes_ask(j->nodes,
		  json_pack("{s:s, s:s, s:s}", "op", "save", "step", "abort", "cluster", j->id), to,
		  ABORT_MS, fn, arg);
}

static void note_abort(struct job *j, const struct gather *answer)
{
	j->save_open = answer->code == -EHOSTDOWN;
}

/* A node that had committed before another one failed has nothing to give up: its VMs stand. */
static void on_aborted(void *arg, const struct gather *answer)
{
	struct save *s = arg;

	note_abort(s->job, answer);
	end_failed(s);
}

static void on_aborted_late(void *arg, const struct gather *answer)
{
	struct job *j = arg;

	note_abort(j, answer);
	if (!j->save_open && j->save_stays)
		ask_run_on(j, on_run_on_late, j);
}

void save_rejoined(struct job *j)
{
	if (j->save_open || j->save_stays)
		ask_abort(j, on_aborted_late, j);
}

static void give_up(struct save *s, const char *reason)
{
	s->code = -ECANCELED;
	snprintf(s->why.text, sizeof(s->why.text), "%s", reason);
	ask_abort(s->job, on_aborted, s);
}

/* -------- the manifest -------- */

static json_t *describe_vms(const struct save *s)
{
	const struct job *j = s->job;
	json_t *list = json_array();

	for (size_t i = 0; i < j->nvms; i++) {
		const struct guest *vm = &j->vm[i];
		json_t *entry = json_deep_copy(json_object_get(s->values, vm->name));

		entry = entry ? entry : json_object();
		json_object_del(entry, "report");
		json_object_set_new(entry, "name", json_string(vm->name));
		json_object_set_new(entry, "address", json_string(vm->address));
		json_object_set_new(entry, "node", json_string(j->node[vm->place].name));
		json_array_append_new(list, entry);
	}
	return list;
}

/* The others have a part in a restart alone: no VM ever gets there. */
static void remove_others(const struct job *j, json_t *nodes)
{
	for (size_t i = 0; i < j->spec.others; i++)
		json_array_remove(nodes, json_array_size(nodes) - 1);
}

/* With what the coordinator was started with, and is not said elsewhere: a restart needs it. */
static json_t *report(const struct save *s)
{
	static const char *const elsewhere[] = {"documents", "environment", "digest", "addresses",
						"socket",    "restore",	    "job",    "former",
						"others",    "used-ms"};
	json_t *spec = json_deep_copy(s->job->spec.json);

	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++)
		json_object_del(spec, elsewhere[i]);
	remove_others(s->job, json_object_get(spec, "nodes"));
	return json_pack("{s:o, s:s, s:I, s:O, s:o*, s:I}", "spec", spec, "id", s->job->id,
			 "used_ms", (json_int_t)s->used_ms, "steps_ms", s->steps, "tcp",
			 save_tcp_describe(&s->tcp), "ms",
			 (json_int_t)((io_now_ns() - s->began) / 1000000));
}

static json_t *content(const struct save *s)
{
	const struct job *j = s->job;

	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:O, s:o}", "name", j->spec.name, "subnet",
			 j->spec.subnet, "digest", j->spec.digest, "environment",
			 json_deep_copy(j->spec.environment), "documents",
			 json_deep_copy(j->spec.documents), "vms", describe_vms(s), "tasks",
			 s->tasks, "report", report(s));
}

/* In the order of the cluster. */
static json_t *describe_saved(const struct save *s)
{
	const struct job *j = s->job;
	json_t *all = json_object();

	for (size_t i = 0; i < j->nvms; i++) {
		json_t *value = json_copy(json_object_get(s->values, j->vm[i].name));

		json_object_set_new(value, "node", json_string(j->node[j->vm[i].place].name));
		json_object_set_new(all, j->vm[i].name, value);
	}
	return all;
}

/* How many checkpoints are kept; 0: all. */
static uint64_t keep_of(const struct job *j)
{
	json_int_t keep = json_integer_value(
		json_object_get(json_object_get(j->spec.environment, "checkpoint"), "keep"));

	return keep > 0 ? (uint64_t)keep : 0;
}

static void on_written(void *arg, int code, const char *reason)
{
	struct save *s = arg;
	json_int_t number, skew;

	if (code) {
		fail_whole(s, code, reason);
		return;
	}
	number = (json_int_t)save_folder_sequence(s->folder);
	skew = (json_int_t)save_folder_skew(s->folder);
	save_prune(s->job, take_ptr(s->folder), keep_of(s->job));
	finish(s, 0, "",
	       json_pack("{s:s, s:I, s:I, s:o, s:O, s:o*, s:I}", "folder", s->path, "checkpoint",
			 number, "skew_ns", skew, "vms", describe_saved(s), "steps_ms", s->steps,
			 "tcp", save_tcp_describe(&s->tcp), "ms",
			 (json_int_t)((io_now_ns() - s->began) / 1000000)));
}

static void commit(struct save *s)
{
	struct error err;

	s->whole = true;
	if (save_folder_write(s->folder, content(s), on_written, s, &err))
		fail_whole(s, -EIO, err.text);
}

/* -------- steps -------- */

static void merge(struct save *s, const struct gather *answer)
{
	const char *place, *vm;
	json_t *node, *value;

	json_object_foreach (answer->values, place, node)
		json_object_foreach (node, vm, value) {
			json_t *known = json_object_get(s->values, vm);

			if (!job_find_vm(s->job, vm) || !json_is_object(value))
				continue;
			if (known)
				json_object_update(known, value);
			else
				json_object_set(s->values, vm, value);
		}
}

static void merge_cut(struct save *s, const struct gather *answer)
{
	merge(s, answer);
	s->tasks = program_tasks(s->job);
	s->used_ms = job_used_ms(s->job);
}

static void count_before(struct save *s, const struct gather *answer)
{
	save_tcp_before(&s->tcp, answer);
}

static void count_after(struct save *s, const struct gather *answer)
{
	save_tcp_after(&s->tcp, answer);
}

/* What a node answers has to be of all its VMs. */
static bool is_whole(const struct save *s)
{
	for (size_t i = 0; i < s->job->nvms; i++) {
		const json_t *value = json_object_get(s->values, s->job->vm[i].name);

		if (!json_is_integer(json_object_get(value, "epoch")) ||
		    !json_is_string(json_object_get(value, "digest")))
			return false;
	}
	return true;
}

static void on_time(void *arg)
{
	ask_step(arg);
}

/* One that is not for VMs that stay paused is left out. */
static void begin_step(struct save *s)
{
	while (steps[s->step].running && suspends(s))
		s->step++;
	if (steps[s->step].wait_ns)
		loop_set_timer(s->timer, steps[s->step].wait_ns, 0);
	else
		ask_step(s);
}

static void next(struct save *s)
{
	if (!steps[s->step].may_fail)
		json_object_set_new(s->steps, steps[s->step].name,
				    json_integer((json_int_t)((io_now_ns() - s->since) / 1000000)));
	if (s->step + 1 < ARRAY_SIZE(steps)) {
		s->step++;
		begin_step(s);
		return;
	}
	if (suspends(s))
		set_state(s->job, VM_READY, VM_PAUSED);
	if (is_whole(s))
		commit(s);
	else
		fail_whole(s, -EPROTO, "a node did not say what it has saved");
}

static void on_step(void *arg, const struct gather *answer)
{
	struct save *s = arg;
	const json_t *one = json_array_get(answer->errors, 0);
	struct error err;

	if (gather_is_good(answer) || steps[s->step].may_fail) {
		steps[s->step].take(s, answer);
		next(s);
		return;
	}
	error_set(&err, 0, "step %s: %s%s%s%s", steps[s->step].name, answer->code ? "" : "node ",
		  answer->code ? "" : job_name_of(s->job, one), answer->code ? "" : ": ",
		  answer->code ? answer->why.text
			       : json_string_value(json_object_get(one, "error")));
	give_up(s, err.text);
}

static void ask_step(struct save *s)
{
	CLEANUP_FREE char *to = job_holders(s->job);
	json_t *request = s->step ? json_object() : json_copy(s->options);

	json_object_set_new(request, "op", json_string(steps[s->step].op));
	json_object_set_new(request, "step", json_string(steps[s->step].name));
	json_object_set_new(request, "cluster", json_string(s->job->id));
	s->since = io_now_ns();
	s->asked = true;
	if (s->ops->step && !steps[s->step].may_fail)
		s->ops->step(s->arg, steps[s->step].name);
	nodes_ask(s->job->nodes, request, to, steps[s->step].ms, on_step, s);
}

static void on_open(void *arg, int code, const char *reason)
{
	struct save *s = arg;
	const json_t *note;
	size_t i;

	if (code) {
		finish(s, code, reason, NULL);
		return;
	}
	json_array_foreach (save_folder_notes(s->folder), i, note)
		job_note(s->job, "in the folder of checkpoints is left alone: %s",
			 json_string_value(note));
	ask_step(s);
}

/* -------- its beginning -------- */

static int find_path(const struct job *j, const char *given, char **ret, struct error *err)
{
	if (!given)
		return checkpoints_path(j->spec.environment, j->spec.name, ret, err);
	*ret = strdup(given);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* What the request says, else the environment. */
static json_t *find_options(const struct job *j, const json_t *request, const char *path)
{
	static const char *const names[] = {"mode", "incremental", "compress"};
	const json_t *rules = json_object_get(j->spec.environment, "checkpoint");
	json_t *options = json_pack("{s:s, s:b}", "folder", path, "suspend",
				    json_is_true(json_object_get(request, "suspend")));

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		json_t *value = json_object_get(request, names[i]);

		value = value ? value : json_object_get(rules, names[i]);
		if (value)
			json_object_set(options, names[i], value);
	}
	if (!strcmp(json_string_value(json_object_get(options, "compress")) ?: "", "none"))
		json_object_del(options, "compress");
	return options;
}

static int check(const struct job *j, struct error *err)
{
	if (j->save_open || j->save_stays)
		return error_set(err, -EBUSY,
				 "a checkpoint of cluster %s that was given up is under way at "
				 "nodes that have not heard so yet: try again",
				 j->spec.name);
	if (j->migrate)
		return error_set(err, -EBUSY, "VMs of cluster %s are being moved", j->spec.name);
	if (j->ending || j->stage != &stage_run)
		return error_set(err, -EAGAIN, "cluster %s does not run (stage %s)", j->spec.name,
				 j->stage ? j->stage->name : "end");
	return 0;
}

static int check_request(const struct job *j, const char *folder, struct error *err)
{
	if (j->save)
		return error_set(err, -EBUSY, "a checkpoint of cluster %s %s", j->spec.name,
				 j->save->waits ? "waits until old ones are removed"
						: "is under way");
	if (folder && *folder != '/')
		return error_set(err, -EINVAL, "\"folder\" is not an absolute path");
	return check(j, err);
}

static int begin(struct save *s, struct error *err)
{
	const struct job *j = s->job;

	s->waits = save_prunes(j, s->path);
	if (s->waits)
		return 0;
	s->began = io_now_ns();
	for (size_t i = 0; i < j->nvms; i++)
		s->were_paused |= j->vm[i].state == VM_PAUSED;
	return save_folder_open(s->folder, on_open, s, err);
}

int save_begin(struct job *j, const json_t *request, const struct save_ops *ops, void *arg,
	       struct error *err)
{
	const char *folder = json_string_value(json_object_get(request, "folder"));
	struct save *s;
	int r = check_request(j, folder, err);

	if (r)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->job = j;
	s->values = json_object();
	s->steps = json_object();
	s->ops = ops;
	s->arg = arg;
	r = find_path(j, folder, &s->path, err);
	if (!r) {
		s->options = find_options(j, request, s->path);
		r = save_folder_create(j->loop, s->path, j->spec.name, j->job, &s->folder, err);
	}
	if (!r && loop_add_timer(j->loop, on_time, s, &s->timer))
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r)
		r = begin(s, err);
	if (r)
		save_free(s);
	else
		j->save = s;
	return r;
}

bool save_is_under_way(const struct job *j)
{
	return j->save && !j->save->waits;
}

/* VMs may have begun to move since it was asked for. */
void save_go_on(struct job *j)
{
	struct error err;
	int r;

	if (!j->save || !j->save->waits)
		return;
	r = check(j, &err);
	if (!r)
		r = begin(j->save, &err);
	if (r)
		finish(j->save, r, err.text, NULL);
}

int save_give_up(struct job *j, struct error *err)
{
	struct save *s = j->save;

	if (!s)
		return error_set(err, -ESRCH, "no checkpoint of cluster %s is under way",
				 j->spec.name);
	if (s->whole)
		return error_set(err, -EALREADY,
				 "all of the checkpoint of cluster %s is saved already",
				 j->spec.name);
	if (s->code)
		return 0;
	if (!s->asked) {
		finish(s, -ECANCELED, "it was given up", NULL);
		return 0;
	}
	nodes_forget(j->nodes, s);
	loop_set_timer(s->timer, 0, 0);
	give_up(s, "it was given up");
	return 0;
}

void save_cancel(struct job *j)
{
	save_prune_stop(j);
	if (j->save)
		finish(j->save, -ECANCELED, "the cluster ends", NULL);
}
