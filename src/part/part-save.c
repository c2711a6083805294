/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cut: a checkpoint of all VMs of this node at once, in steps that the coordinator tells. Each
 * VM has a wisp-mover of its own (docs/formats/checkpoint-steps.md).
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "part/part.h"
#include "vms/record.h"
#include "vms/shares-agent.h"

#define CUT_NS 5000000000ull /* from the cut to "resume" */
#define END_MS 10000	     /* for a mover to undo what it has begun */
#define SILENCE_MS 300000    /* in which something gets done, or a file system hangs */
#define SILENCE_LOOKS 8	     /* in this time */
#define MS 1000000ull

/* What a mover says, in its order, and what it is told. */
enum step { STEP_NONE, STEP_BEGIN, STEP_CUT, STEP_RESUME, STEP_WRITTEN, STEP_COMMIT };

static const struct {
	const char *asked, *said;
} steps[] = {
	[STEP_NONE] = {"", ""},
	[STEP_BEGIN] = {"begin", "ready"},
	[STEP_CUT] = {"cut", "cut"},
	[STEP_RESUME] = {"resume", "resumed"},
	[STEP_WRITTEN] = {"", "written"}, /* asked by commit */
	[STEP_COMMIT] = {"commit", "committed"},
};

struct saved {
	struct save *save;
	const struct setup_vm *vm;
	struct errand *errand; /* NULL: it has ended */
	enum step reached;
	uint64_t heard; /* of it, io_now_ns(): also that it gets on */
	json_t *value;	/* what it said of that */
};

struct save {
	struct part *part;
	json_t *request; /* the first */
	char *folder;
	struct saved *vms;
	size_t nvms;
	enum step step;	  /* that all are to reach */
	json_int_t id;	  /* who waits for that; 0: nobody */
	json_int_t abort; /* who waits for the end of all; 0: nobody */
	struct loop_source *patience;
	struct loop_source *watch;  /* for movers that do not get on */
	uint64_t silence_ns, since; /* how long they may; when the step was asked for */
	int code;		    /* it has failed, and ends */
	struct error reason;
};

/* -------- in the children -------- */

/* What one VM's is made by: it becomes its wisp-mover. */
struct saving {
	const struct save *save;
	const char *name;
};

static const char *option(const struct save *s, const char *name)
{
	return record_text(s->request, name);
}

static void mover_args(const struct save *s, const char *program, const char *dir,
		       const char *folder, const char *image_key, struct args *args)
{
	args_add(args, "%s", program);
	args_add(args, "checkpoint");
	args_add(args, "--steps");
	args_add(args, "--control=%s/" VM_CONTROL, dir);
	args_add(args, "--config=%s/" RECORD_CONFIG, dir);
	args_add(args, "--dir=%s", folder);
	args_add(args, strcmp(option(s, "mode"), "stop") ? "--live" : "--stop");
	if (json_is_true(json_object_get(s->request, "suspend")))
		args_add(args, "--suspend");
	if (json_is_true(json_object_get(s->request, "incremental")))
		args_add(args, "--incremental");
	if (*option(s, "compress"))
		args_add(args, "--compress=%s", option(s, "compress"));
	if (*image_key)
		args_add(args, "--image=%s", image_key);
	args_add(args, "--progress=none");
}

static int save_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct saving *saving = arg;
	const struct save *s = saving->save;
	CLEANUP_FREE char *folder = io_format("%s/vm/%s", s->folder, saving->name);
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL;
	struct args args = {0};
	int r = folder ? vms_dir(saving->name, &dir, err) : -ENOMEM;

	if (!r)
		r = paths_program("wisp-mover", &program, err);
	if (!r)
		r = record_read(dir, RECORD_CONFIG, &config, err);
	if (!r)
		r = io_make_dirs(folder, 0700, err);
	if (!r)
		r = shares_detach(dir, config, err);
	if (r)
		return r;
	mover_args(s, program, dir, folder, record_text(config, "image_key"), &args);
	return args.failed ? error_set(err, -ENOMEM, "out of memory")
			   : errand_become(talk, (const char *const *)args.v, err);
}

/* -------- its end -------- */

static void save_free(struct save *s)
{
	if (s->part->save == s)
		s->part->save = NULL;
	loop_remove(&s->patience);
	loop_remove(&s->watch);
	for (size_t i = 0; i < s->nvms; i++)
		json_decref(s->vms[i].value);
	free(s->vms);
	free(s->folder);
	json_decref(s->request);
	free(s);
}

static bool any_left(const struct save *s)
{
	for (size_t i = 0; i < s->nvms; i++)
		if (s->vms[i].errand)
			return true;
	return false;
}

static void refuse(struct save *s)
{
	if (s->id)
		part_refuse(s->part, s->id, s->code, s->reason.text, NULL);
	s->id = 0;
}

/* All give up: the VMs run, and nothing is left. Who waits hears it when that is so. */
static void fail(struct save *s, int code, const char *vm, const char *reason)
{
	if (s->code)
		return;
	s->code = code ? code : -EIO;
	error_set(&s->reason, 0, "%s%s%s", vm, *vm ? ": " : "", reason);
	loop_set_timer(s->patience, 0, 0);
	for (size_t i = 0; i < s->nvms; i++)
		if (s->vms[i].errand)
			errand_cancel(s->vms[i].errand, END_MS);
}

static void on_patience(void *arg)
{
	fail(arg, -ETIMEDOUT, "", "nobody said \"resume\" within 5 s of the cut: the VMs run on");
}

/* -------- movers that do not get on -------- */

static bool is_there(const struct save *s, const struct saved *v)
{
	return v->reached >= s->step && !(s->step == STEP_COMMIT && v->errand);
}

static const struct saved *find_silent(const struct save *s)
{
	uint64_t now = io_now_ns();

	for (size_t i = 0; i < s->nvms; i++) {
		const struct saved *v = &s->vms[i];
		uint64_t since = v->heard > s->since ? v->heard : s->since;

		if (!is_there(s, v) && now - since > s->silence_ns)
			return v;
	}
	return NULL;
}

/*
 * A step takes as long as it takes, but one that does not get on has an end. Who waits hears it at
 * once: a mover that waits for a disk may not even be killed.
 */
static void on_watch(void *arg)
{
	struct save *s = arg;
	const struct saved *v = s->id && !s->code ? find_silent(s) : NULL;
	struct error why;

	if (!v)
		return;
	error_set(&why, 0,
		  "its checkpoint has not got on for %g s: does the file system of %s hang?",
		  (double)s->silence_ns / 1e9, s->folder);
	fail(s, -ETIMEDOUT, v->vm->name, why.text);
	refuse(s);
}

static int watch(struct save *s)
{
	json_int_t ms = json_integer_value(json_object_get(s->request, "silence-ms"));
	uint64_t look;
	int r;

	s->silence_ns = (ms > 0 && ms < SILENCE_MS ? (uint64_t)ms : SILENCE_MS) * MS;
	s->since = io_now_ns();
	look = s->silence_ns / SILENCE_LOOKS;
	r = loop_add_timer(s->part->loop, on_watch, s, &s->watch);
	return r ? r : loop_set_timer(s->watch, look, look);
}

/* -------- steps -------- */

static void tell(struct save *s, enum step step)
{
	json_t *message = json_pack("{s:s}", "step", steps[step].asked);

	for (size_t i = 0; i < s->nvms; i++)
		if (s->vms[i].errand)
			errand_tell(s->vms[i].errand, message);
	json_decref(message);
}

static bool all_reached(const struct save *s, enum step step)
{
	for (size_t i = 0; i < s->nvms; i++)
		if (s->vms[i].reached < step)
			return false;
	return true;
}

static json_t *values(const struct save *s)
{
	json_t *all = json_object();

	for (size_t i = 0; i < s->nvms; i++) {
		json_t *value = json_copy(s->vms[i].value);

		json_object_del(value, "step");
		if (s->step == STEP_COMMIT)
			json_object_set_new(
				value, "folder",
				json_sprintf("%s/vm/%s", s->folder, s->vms[i].vm->name));
		json_object_set_new(all, s->vms[i].vm->name, value);
	}
	return all;
}

/* Every VM has come where it was to come. */
static void arrive(struct save *s)
{
	if (s->step == STEP_WRITTEN) {
		s->step = STEP_COMMIT;
		tell(s, STEP_COMMIT);
		return;
	}
	/* The movers end now, and then it is told. */
	if (s->step == STEP_COMMIT && any_left(s))
		return;
	/* Without its shares a guest's programs find empty folders. */
	if (s->step == STEP_RESUME)
		part_attach(s->part);
	if (s->step == STEP_CUT && !json_is_true(json_object_get(s->request, "suspend")))
		loop_set_timer(s->patience, CUT_NS, 0);
	if (s->id)
		part_answer(s->part, s->id, values(s));
	s->id = 0;
}

static void on_said(void *arg, const json_t *message, int fd)
{
	struct saved *v = arg;
	struct save *s = v->save;
	const char *said = record_text(message, "step");

	cleanup_close_fd(&fd);
	v->heard = io_now_ns();
	if (!strcmp(said, "failed")) {
		fail(s, -(int)json_integer_value(json_object_get(message, "errno")), v->vm->name,
		     record_text(message, "error"));
		return;
	}
	for (enum step step = STEP_BEGIN; step <= STEP_COMMIT; step++) {
		if (strcmp(said, steps[step].said))
			continue;
		v->reached = step;
		json_object_update(v->value, (json_t *)message);
		if (!s->code && s->step == step && all_reached(s, step))
			arrive(s);
		return;
	}
}

/* No mover is left. A failure that nobody waits for is told to who asks next. */
static void end_all(struct save *s)
{
	if (s->code)
		part_attach(s->part);
	else
		arrive(s);
	if (s->abort)
		part_answer(s->part, s->abort, NULL);
	if (s->code && !s->abort && !s->id)
		return;
	refuse(s);
	save_free(s);
}

static void on_done(void *arg, const struct errand_end *end)
{
	struct saved *v = arg;
	struct save *s = v->save;

	v->errand = NULL;
	if (end->code || v->reached != STEP_COMMIT)
		fail(s, end->code ? end->code : -EPIPE, v->vm->name,
		     *end->reason ? end->reason : "wisp-mover has ended");
	if (!any_left(s))
		end_all(s);
}

static const struct errand_ops ops = {on_said, on_done};

/* -------- requests -------- */

static int check_begin(const struct part *p, const json_t *request, struct error *err)
{
	const char *mode = record_text(request, "mode");

	if (p->save && !p->save->code)
		return error_set(err, -EBUSY, "a checkpoint of cluster %s is under way",
				 p->setup.cluster);
	if (p->save && any_left(p->save))
		return error_set(err, -EBUSY,
				 "a wisp-mover of an earlier checkpoint of cluster %s, which was "
				 "given up, has not ended yet",
				 p->setup.cluster);
	if (*record_text(request, "folder") != '/')
		return error_set(err, -EINVAL, "\"folder\" is not an absolute path");
	if (*mode && strcmp(mode, "live") && strcmp(mode, "stop"))
		return error_set(err, -EINVAL, "\"mode\" is live or stop, not \"%s\"", mode);
	return 0;
}

static int make_save(struct part *p, json_int_t id, const json_t *request, struct save **ret,
		     struct error *err)
{
	const struct setup_vm **vms = NULL;
	struct save *s = calloc(1, sizeof(*s));
	size_t n = 0;
	int r = s ? part_vms(p, request, &vms, &n, err) : error_set(err, -ENOMEM, "out of memory");

	if (!r) {
		*s = (struct save){.part = p,
				   .request = json_incref((json_t *)request),
				   .folder = strdup(record_text(request, "folder")),
				   .vms = calloc(n + 1, sizeof(*s->vms)),
				   .step = STEP_BEGIN,
				   .id = id};
		r = s->folder && s->vms ? loop_add_timer(p->loop, on_patience, s, &s->patience)
					: -ENOMEM;
		if (!r)
			r = watch(s);
		if (r)
			error_errno(err, r, "cannot begin a checkpoint");
		for (size_t i = 0; !r && i < n; i++)
			s->vms[s->nvms++] =
				(struct saved){.save = s, .vm = vms[i], .value = json_object()};
	}
	free(vms);
	if (!r)
		*ret = s;
	else if (s && s->part)
		save_free(s);
	else
		free(s);
	return r;
}

static void begin(struct part *p, json_int_t id, const json_t *request)
{
	struct save *s;
	struct error err;
	int r = check_begin(p, request, &err);

	if (!r)
		r = make_save(p, id, request, &s, &err);
	if (r) {
		part_refuse(p, id, r, err.text, NULL);
		return;
	}
	if (p->save)
		save_free(p->save);
	p->save = s;
	for (size_t i = 0; i < s->nvms && !s->code; i++) {
		struct saving saving = {s, s->vms[i].vm->name};

		r = errand_start(p->errands, &ops, &s->vms[i], save_one, &saving, &s->vms[i].errand,
				 &err);
		if (r)
			fail(s, r, saving.name, err.text);
	}
	if (!any_left(s)) {
		fail(s, -ENOENT, "", "there is no VM to be saved");
		refuse(s);
		save_free(s);
	}
}

/* Each comes behind the one before. */
static int check_step(const struct save *s, enum step step, struct error *err)
{
	enum step before =
		step == STEP_COMMIT && json_is_true(json_object_get(s->request, "suspend"))
			? STEP_CUT
		: step == STEP_COMMIT ? STEP_RESUME
				      : step - 1;

	if (s->id)
		return error_set(err, -EBUSY, "the step before is under way");
	if (s->step != before)
		return error_set(err, -EPROTO, "\"%s\" comes behind \"%s\", not behind \"%s\"",
				 steps[step].asked, steps[before].asked, steps[s->step].asked);
	return 0;
}

static void go_to(struct save *s, enum step step, json_int_t id)
{
	s->id = id;
	s->since = io_now_ns();
	s->step = step == STEP_COMMIT ? STEP_WRITTEN : step;
	loop_set_timer(s->patience, 0, 0);
	if (step != STEP_COMMIT)
		tell(s, step);
	else if (all_reached(s, STEP_WRITTEN))
		arrive(s);
}

static void do_step(struct part *p, json_int_t id, enum step step)
{
	struct save *s = p->save;
	struct error err;
	int r = s && !s->code ? check_step(s, step, &err) : 0;

	if (!s) {
		part_refuse(p, id, -ENOENT, "no checkpoint is under way", NULL);
	} else if (r) {
		part_refuse(p, id, r, err.text, NULL);
	} else if (!s->code) {
		go_to(s, step, id);
	} else if (any_left(s)) {
		s->id = id;
	} else {
		s->id = id;
		refuse(s);
		save_free(s);
	}
}

/* Also without one it is done; answered when all VMs run. */
static void abort_save(struct part *p, json_int_t id)
{
	struct save *s = p->save;

	if (s) {
		fail(s, -ECANCELED, "", "the checkpoint was given up");
		refuse(s);
	}
	if (s && any_left(s)) {
		s->abort = id;
		return;
	}
	if (s)
		save_free(s);
	part_answer(p, id, NULL);
}

void part_save(struct part *p, json_int_t id, const json_t *request)
{
	const char *word = record_text(request, "step");

	if (!strcmp(word, "begin")) {
		begin(p, id, request);
		return;
	}
	if (!strcmp(word, "abort")) {
		abort_save(p, id);
		return;
	}
	for (enum step step = STEP_CUT; step <= STEP_COMMIT; step++)
		if (*word && !strcmp(word, steps[step].asked)) {
			do_step(p, id, step);
			return;
		}
	part_refuse(p, id, -EINVAL, "\"step\" is begin, cut, resume, commit or abort", NULL);
}

void part_save_stop(struct part *p)
{
	if (p->save)
		fail(p->save, -ECANCELED, "", "the VMs are stopped");
}

void part_save_destroy(struct part *p)
{
	if (p->save)
		save_free(p->save);
}
