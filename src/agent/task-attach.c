/* SPDX-License-Identifier: Apache-2.0 */
/* The session that is attached to a task: what it is sent, and what it says. */

#include "agent/task.h"

#include <errno.h>

#include "agent/agent.h"
#include "agent/program.h"
#include "lib/error.h"

static const enum frame_type frame_types[2] = {FRAME_STDOUT, FRAME_STDERR};

/* One frame of a stream, if there is one to send. Returns 1, 0 or -ENOMEM. */
static int send_some(struct task *t, int i, struct buffer *out)
{
	struct window *w = &t->out[i];
	const uint8_t *data = NULL;
	size_t n = window_get(w, t->sent[i], &data);

	if (!n && (!w->ended || t->end_sent[i]))
		return 0;
	if (n > PROTO_MAX_PAYLOAD)
		n = PROTO_MAX_PAYLOAD;
	if (frame_append(out, frame_types[i], data, n))
		return -ENOMEM;
	t->sent[i] += n;
	t->end_sent[i] = !n;
	return 1;
}

static bool all_sent(const struct task *t)
{
	return t->sent[0] == t->out[0].end && t->sent[1] == t->out[1].end;
}

/* Both streams in turn, as long as the client takes frames. */
static int send_all(struct task *t)
{
	struct buffer *out = session_output(t->session);
	int some = 1;

	while (some > 0 && !session_full(t->session)) {
		int first = send_some(t, 0, out), second = first < 0 ? first : send_some(t, 1, out);

		some = second < 0 ? second : first + second;
	}
	return some < 0 ? some : 0;
}

void task_pump(struct task *t)
{
	struct session *s = t->session;
	int r;

	if (!s)
		return;
	r = send_all(t);
	session_send(s);
	if (!r && (t->program || !all_sent(t) || session_full(s)))
		return;
	if (!r)
		r = frame_append_exit(session_output(s), t->status);
	t->session = NULL;
	if (r)
		session_fail(s, r, "the agent is out of memory");
	else
		session_finish(s);
}

int task_credit(struct task *t, uint32_t n)
{
	int r;

	if (!t->session)
		return 0;
	r = frame_append_u32(session_output(t->session), FRAME_CREDIT, n);
	session_send(t->session);
	return r;
}

void task_detach(struct task *t, int code, const char *text)
{
	struct session *s = t->session;

	t->session = NULL;
	if (s)
		session_fail(s, code, text);
}

static int on_ack(struct task *t, const struct frame *frame, struct error *err)
{
	enum stream_number stream;
	uint64_t position;
	int r = frame_position(frame, &stream, &position, err);

	if (r)
		return r;
	if (stream == STREAM_IN)
		return error_set(err, -EPROTO, "stdin is not the client's to acknowledge");
	if (position > t->sent[stream - STREAM_OUT])
		return error_set(err, -EPROTO, "position %llu was acknowledged before it was sent",
				 (unsigned long long)position);
	window_drop(&t->out[stream - STREAM_OUT], position);
	if (t->program)
		program_resume(t->program);
	return 0;
}

static int on_frame(void *arg, const struct frame *frame, struct error *err)
{
	struct task *t = arg;

	if (frame->type == FRAME_POSITION)
		return on_ack(t, frame, err);
	if (t->program)
		return program_frame(t->program, frame, err);
	if (frame->type == FRAME_STDIN || frame->type == FRAME_SIGNAL ||
	    frame->type == FRAME_WINSIZE)
		return 0;
	return error_set(err, -EPROTO, "frame %d to a task", (int)frame->type);
}

static void on_resume(void *arg)
{
	task_pump(arg);
}

static void on_gone(void *arg)
{
	struct task *t = arg;

	t->session = NULL;
}

static const struct session_user user = {.frame = on_frame, .resume = on_resume, .gone = on_gone};

/* Where a stream is to go on. */
static int parse_position(const struct task *t, const json_t *request, int i, uint64_t *ret,
			  struct error *err)
{
	static const char *const names[2] = {"stdout", "stderr"};
	const struct window *w = &t->out[i];
	const json_t *value = json_object_get(request, names[i]);
	json_int_t n = json_integer_value(value);

	if (value && (!json_is_integer(value) || n < 0))
		return error_set(err, -EINVAL, "\"%s\" is no position", names[i]);
	*ret = value ? (uint64_t)n : w->start;
	if (*ret >= w->start && *ret <= w->end)
		return 0;
	return error_set(err, -ERANGE, "task %s has its %s from %llu to %llu, not from %llu on",
			 t->id, names[i], (unsigned long long)w->start, (unsigned long long)w->end,
			 (unsigned long long)*ret);
}

/* The start of the stream of frames. */
static int greet(struct task *t, struct buffer *out)
{
	bool ended;
	uint64_t received = t->program ? program_received(t->program, &ended) : t->received;
	uint32_t credit = t->program ? program_credit(t->program) : 0;
	int r = frame_append_u32(out, FRAME_STARTED, (uint32_t)t->pid);

	if (!r)
		r = frame_append_position(out, STREAM_IN, received);
	if (!r)
		r = frame_append_position(out, STREAM_OUT, t->sent[0]);
	if (!r)
		r = frame_append_position(out, STREAM_ERR, t->sent[1]);
	return r ? r : frame_append_u32(out, FRAME_CREDIT, credit);
}

int task_attach(struct task *t, struct session *session, const json_t *request, struct error *err)
{
	uint64_t from[2] = {0};
	int r = parse_position(t, request, 0, &from[0], err);

	if (!r)
		r = parse_position(t, request, 1, &from[1], err);
	if (r)
		return r;
	task_detach(t, -ECANCELED, "another client has attached to the task");
	for (int i = 0; i < 2; i++) {
		t->sent[i] = from[i];
		t->end_sent[i] = false;
	}
	if (greet(t, session_output(session)))
		return error_errno(err, -ENOMEM, "cannot attach to task %s", t->id);
	t->session = session;
	session_give(session, &user, t);
	task_pump(t);
	return 0;
}
