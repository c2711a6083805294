/* SPDX-License-Identifier: Apache-2.0 */
/* A task as the owner of its program: from its start to its end, and what is left of it. */

#include "agent/task.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/program.h"
#include "agent/user.h"
#include "lib/error.h"

/* -------- whoever asked for it and waits -------- */

static int starter_frame(void *arg, const struct frame *frame, struct error *err)
{
	return error_set(err, -EPROTO, "frame %d while a task is started", (int)frame->type);
}

static void starter_gone(void *arg)
{
	struct task *t = arg;

	t->starter = NULL;
}

static const struct session_user starter = {.frame = starter_frame, .gone = starter_gone};

/* -------- the program -------- */

static int on_started(void *arg)
{
	struct task *t = arg;
	struct session *s = t->starter;
	struct error err;
	int r;

	t->started = true;
	t->starter = NULL;
	r = s ? session_result(s, task_describe(t), &err) : 0;
	if (r)
		session_fail(s, r, err.text);
	return 0;
}

static int on_room(void *arg, enum stream_number stream, uint8_t **data, size_t *size)
{
	struct task *t = arg;

	*size = window_room(&t->out[stream - STREAM_OUT], data);
	return 0;
}

static void on_output(void *arg, enum stream_number stream, size_t n)
{
	struct task *t = arg;
	struct window *w = &t->out[stream - STREAM_OUT];

	window_add(w, n);
	w->ended = !n;
	task_pump(t);
}

static int on_credit(void *arg, uint32_t n)
{
	return task_credit(arg, n);
}

static void on_ended(void *arg, int status)
{
	struct task *t = arg;

	t->received = program_received(t->program, &t->input_ended);
	t->program = NULL;
	t->status = status;
	task_pump(t);
}

static void on_failed(void *arg, int code, const char *text)
{
	struct task *t = arg;

	if (t->started) {
		log_error(&t->agent->log, "task", "%s is ended: %s", t->id, text);
		on_ended(t, SIGKILL);
		return;
	}
	if (t->starter)
		session_fail(t->starter, code, text);
	task_detach(t, code, text);
	task_destroy(t);
}

static const struct program_owner owner = {
	.started = on_started,
	.room = on_room,
	.output = on_output,
	.credit = on_credit,
	.failed = on_failed,
	.ended = on_ended,
};

/* -------- requests -------- */

static int run(struct task *t, const json_t *request, struct error *err)
{
	static const struct frame end = {.type = FRAME_STDIN};
	int r = program_start(t->agent, request, &owner, t, &t->program, err);

	if (r)
		return r;
	t->pid = program_pid(t->program);
	t->terminal = json_object_get(request, "terminal") != NULL;
	t->path = strdup(program_path(t->program));
	snprintf(t->user, sizeof(t->user), "%s", program_user(t->program)->name);
	r = t->path ? 0 : error_errno(err, -ENOMEM, "cannot start task %s", t->id);
	if (!r && json_is_false(json_object_get(request, "stdin")))
		r = program_frame(t->program, &end, err);
	if (r)
		program_hangup(t->program);
	return r;
}

int task_start(struct agent *agent, struct session *session, uid_t caller, const json_t *request,
	       struct error *err)
{
	const char *id = json_string_value(json_object_get(request, "id"));
	struct task *t;
	int r = task_create(agent, id, caller, &t, err);

	if (r)
		return r;
	r = run(t, request, err);
	if (r) {
		task_destroy(t);
		return r;
	}
	t->starter = session;
	session_give(session, &starter, t);
	return 0;
}

int task_signal(struct task *t, const json_t *request, struct error *err)
{
	json_int_t signo = json_integer_value(json_object_get(request, "signal"));

	if (signo < 1 || signo >= _NSIG)
		return error_set(err, -EINVAL, "\"signal\" is not 1 to %d", _NSIG - 1);
	if (!t->program)
		return error_set(err, -ESRCH, "task %s has ended", t->id);
	return program_signal(t->program, (uint32_t)signo, err);
}

int task_remove(struct task *t, const json_t *request, struct error *err)
{
	if (t->program && !json_is_true(json_object_get(request, "kill")))
		return error_set(err, -EBUSY, "task %s runs: end it first, or give \"kill\"",
				 t->id);
	if (t->program)
		program_hangup(t->program);
	if (t->starter)
		session_fail(t->starter, -ECANCELED, "the task was removed");
	task_detach(t, -ECANCELED, "the task was removed");
	task_destroy(t);
	return 0;
}
