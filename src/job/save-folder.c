/* SPDX-License-Identifier: Apache-2.0 */
/* What is done in the folder of a cluster's checkpoints, in threads. */

#include "job/save-folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "job/checkpoints.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "lib/offload.h"

/* What a thread works on; nobody else looks at it meanwhile. */
struct content {
	_Atomic unsigned refs;
	char *path;
	struct checkpoints folder;
	bool open;
	uint64_t sequence, parent, keep, skew_ns;
	char job[JOB_ID], parent_digest[DIGEST_TEXT];
	char *cluster;
	json_t *json, *notes;
	int code;
	struct error why;
};

struct save_folder {
	struct loop *loop;
	struct content *content;
	struct offload *work;
	struct loop_source *done;
	save_folder_fn *fn;
	void *arg;
};

static void close_folder(struct content *c)
{
	if (c->open)
		checkpoints_close(&c->folder);
	c->open = false;
}

static void unref(void *arg)
{
	struct content *c = arg;

	if (--c->refs)
		return;
	close_folder(c);
	json_decref(c->json);
	json_decref(c->notes);
	free(c->cluster);
	free(c->path);
	free(c);
}

/* -------- in the threads -------- */

/* Of two jobs in one folder the newer one would prune the other's checkpoints. */
static int check_owner(struct content *c, const struct job_manifest *last)
{
	if (strcmp(last->cluster, c->cluster))
		return error_set(&c->why, -EEXIST,
				 "%s has checkpoints of cluster %s: give cluster %s another folder",
				 c->path, last->cluster, c->cluster);
	if (strcmp(last->job, c->job))
		return error_set(
			&c->why, -EEXIST,
			"%s has checkpoints of an earlier job of cluster %s (the last is "
			"of %s): give another folder, or go on with that job (wisp cluster "
			"restart %s)",
			c->path, c->cluster, last->created, c->path);
	return 0;
}

/* The newest that can be read. 0: there is no checkpoint at all; 1: it is there. */
static int read_last(struct content *c, struct job_manifest *ret)
{
	CLEANUP_FREE uint64_t *found = NULL;
	size_t n = 0;
	int r = checkpoints_list(&c->folder, &found, &n, &c->why), why = 0;

	if (r)
		return r;
	c->sequence = n ? found[n - 1] + 1 : 1;
	for (size_t i = n; i--;) {
		why = checkpoints_read(&c->folder, found[i], ret, &c->why);
		if (!why)
			return 1;
	}
	return why ? error_prefix(&c->why, why,
				  "no checkpoint of %s can be read, which tells whose they are: "
				  "give another folder",
				  c->path)
		   : 0;
}

/* The one before tells whose checkpoints these are. */
static int look_back(struct content *c)
{
	struct job_manifest last;
	int r = read_last(c, &last);

	if (r <= 0)
		return r;
	r = check_owner(c, &last);
	c->parent = last.sequence;
	memcpy(c->parent_digest, last.digest, sizeof(c->parent_digest));
	job_manifest_done(&last);
	return r;
}

/* What is damaged is in nobody's way: it is told of, and stays. */
static void tidy(struct content *c)
{
	struct error why;

	json_array_clear(c->notes);
	if (checkpoints_tidy(&c->folder, 0, NULL, c->notes, &why))
		json_array_append_new(c->notes, json_string(why.text));
}

static void open_it(void *arg)
{
	struct content *c = arg;

	c->code = io_make_dirs(c->path, 0700, &c->why);
	if (!c->code)
		c->code = checkpoints_open(c->path, true, &c->folder, &c->why);
	if (c->code)
		return;
	c->open = true;
	c->code = look_back(c);
	if (!c->code)
		tidy(c);
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static uint64_t number(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* Folders are as docs/formats/job-checkpoint.md has them. */
static int take_vms(json_t *list, struct job_vm *ret)
{
	json_t *vm;
	size_t i;

	json_array_foreach (list, i, vm) {
		const char *name = text(vm, "name");

		json_object_set_new(vm, "folder", json_sprintf(CHECKPOINTS_VMS "/%s", name));
		ret[i] = (struct job_vm){.name = name,
					 .address = text(vm, "address"),
					 .node = text(vm, "node"),
					 .folder = text(vm, "folder"),
					 .epoch = number(vm, "epoch"),
					 .digest = text(vm, "digest"),
					 .cut_at = number(vm, "at"),
					 .pause_ns = number(vm, "pause_ns")};
	}
	return 0;
}

static void take_tasks(const json_t *list, struct job_task *ret)
{
	const json_t *task;
	size_t i;

	json_array_foreach (list, i, task)
		ret[i] = (struct job_task){.vm = text(task, "vm"),
					   .id = text(task, "id"),
					   .out = number(task, "stdout"),
					   .err = number(task, "stderr")};
}

static int write_manifest(struct content *c, struct job_vm *vms, struct job_task *tasks)
{
	struct job_manifest m = {.sequence = c->sequence,
				 .parent = c->parent,
				 .cluster = text(c->json, "name"),
				 .subnet = text(c->json, "subnet"),
				 .environment = json_object_get(c->json, "environment"),
				 .documents = json_object_get(c->json, "documents"),
				 .vm = vms,
				 .vms = json_array_size(json_object_get(c->json, "vms")),
				 .task = tasks,
				 .tasks = json_array_size(json_object_get(c->json, "tasks")),
				 .report = json_object_get(c->json, "report")};
	int r;

	memcpy(m.job, c->job, sizeof(m.job));
	memcpy(m.parent_digest, c->parent_digest, sizeof(m.parent_digest));
	snprintf(m.environment_digest, sizeof(m.environment_digest), "%s", text(c->json, "digest"));
	r = job_manifest_write(c->folder.dir, &m, &c->why);
	c->skew_ns = m.skew_ns;
	return r;
}

static void write_it(void *arg)
{
	struct content *c = arg;
	json_t *list = json_object_get(c->json, "vms");
	const json_t *tasks = json_object_get(c->json, "tasks");
	CLEANUP_FREE struct job_vm *vms = calloc(json_array_size(list) + 1, sizeof(*vms));
	CLEANUP_FREE struct job_task *task = calloc(json_array_size(tasks) + 1, sizeof(*task));

	c->code = vms && task ? take_vms(list, vms) : error_set(&c->why, -ENOMEM, "out of memory");
	if (c->code)
		return;
	take_tasks(tasks, task);
	c->code = write_manifest(c, vms, task);
}

static void prune_it(void *arg)
{
	struct content *c = arg;

	c->code = checkpoints_tidy(&c->folder, c->keep, NULL, c->notes, &c->why);
}

/* -------- for the loop -------- */

static void on_done(void *arg, uint32_t events)
{
	struct save_folder *f = arg;
	struct content *c = f->content;

	loop_remove(&f->done);
	offload_drop(&f->work);
	f->fn(f->arg, c->code, c->why.text);
}

static int begin(struct save_folder *f, void (*work)(void *arg), save_folder_fn *fn, void *arg,
		 struct error *err)
{
	int r;

	f->content->refs++;
	r = offload_start(work, unref, f->content, &f->work, err);
	if (r) {
		unref(f->content);
		return r;
	}
	f->fn = fn;
	f->arg = arg;
	r = loop_add_fd(f->loop, offload_fd(f->work), EPOLLIN, on_done, f, &f->done);
	return r ? error_errno(err, r, "cannot wait for a thread") : 0;
}

int save_folder_open(struct save_folder *f, save_folder_fn *fn, void *arg, struct error *err)
{
	return begin(f, open_it, fn, arg, err);
}

int save_folder_write(struct save_folder *f, json_t *content, save_folder_fn *fn, void *arg,
		      struct error *err)
{
	json_decref(f->content->json);
	f->content->json = content;
	return begin(f, write_it, fn, arg, err);
}

int save_folder_prune(struct save_folder *f, uint64_t keep, save_folder_fn *fn, void *arg,
		      struct error *err)
{
	f->content->keep = keep;
	return begin(f, prune_it, fn, arg, err);
}

const char *save_folder_path(const struct save_folder *f)
{
	return f->content->path;
}

uint64_t save_folder_sequence(const struct save_folder *f)
{
	return f->content->sequence;
}

const json_t *save_folder_notes(const struct save_folder *f)
{
	return f->content->notes;
}

uint64_t save_folder_skew(const struct save_folder *f)
{
	return f->content->skew_ns;
}

int save_folder_create(struct loop *loop, const char *path, const char *cluster, const char *job,
		       struct save_folder **ret, struct error *err)
{
	struct save_folder *f = calloc(1, sizeof(*f));
	struct content *c = calloc(1, sizeof(*c));

	if (c) {
		c->refs = 1;
		c->path = strdup(path);
		c->cluster = strdup(cluster);
		c->notes = json_array();
		snprintf(c->job, sizeof(c->job), "%s", job);
	}
	if (!f || !c || !c->path || !c->cluster || !c->notes) {
		if (c)
			unref(c);
		free(f);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*f = (struct save_folder){.loop = loop, .content = c};
	*ret = f;
	return 0;
}

void save_folder_destroy(struct save_folder *f)
{
	if (!f)
		return;
	/* A thread that is done may not have gone yet, and others want the lock from now on. */
	if (!f->work)
		close_folder(f->content);
	loop_remove(&f->done);
	offload_drop(&f->work);
	unref(f->content);
	free(f);
}
