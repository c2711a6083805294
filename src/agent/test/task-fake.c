/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and programs that are none. */

#include "task-fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/user.h"
#include "lib/error.h"

#define FULL (2 * PROTO_MAX_PAYLOAD)

uint8_t fake_byte(int stream, uint64_t position)
{
	return (uint8_t)(position * 31 + (position >> 8) + (uint64_t)stream * 7);
}

/* -------- sessions -------- */

struct buffer *session_output(struct session *s)
{
	return &s->out;
}

bool session_full(const struct session *s)
{
	return buffer_used(&s->out) >= FULL;
}

void session_send(struct session *s)
{
}

void session_give(struct session *s, const struct session_user *user, void *arg)
{
	s->user = user;
	s->arg = arg;
}

void session_finish(struct session *s)
{
	if (s->over)
		abort();
	s->over = true;
	s->user = NULL;
}

void session_fail(struct session *s, int code, const char *text)
{
	s->code = code;
	session_finish(s);
}

int session_result(struct session *s, json_t *result, struct error *err)
{
	if (!result)
		abort();
	s->result = result;
	session_finish(s);
	return 0;
}

static void on_data(struct session *s, const struct frame *frame)
{
	int stream = frame->type == FRAME_STDERR ? STREAM_ERR : STREAM_OUT;

	if (s->ended[stream])
		abort();
	s->ended[stream] = !frame->size;
	for (size_t i = 0; i < frame->size; i++)
		if (frame->data[i] != fake_byte(stream - 1, s->next[stream]++))
			abort();
}

static void on_frame(struct session *s, const struct frame *frame)
{
	enum stream_number stream;
	uint64_t position;

	if (s->exits)
		abort();
	switch (frame->type) {
	case FRAME_STARTED:
	case FRAME_CREDIT:
		break;
	case FRAME_STDOUT:
	case FRAME_STDERR:
		on_data(s, frame);
		break;
	case FRAME_POSITION:
		if (frame_position(frame, &stream, &position, NULL))
			abort();
		s->next[stream] = position;
		break;
	case FRAME_EXIT:
		s->exits++;
		break;
	default:
		abort();
	}
}

void fake_session_drain(struct session *s)
{
	struct frame frame;

	while (buffer_used(&s->out)) {
		bool full = session_full(s);

		if (frame_parse(&s->out, &frame, NULL) != 1)
			abort();
		on_frame(s, &frame);
		frame_consume(&s->out, &frame);
		if (full && !session_full(s) && s->user && s->user->resume)
			s->user->resume(s->arg);
	}
}

void fake_session_frame(struct session *s, const struct frame *frame)
{
	struct error err;
	int r = s->user ? s->user->frame(s->arg, frame, &err) : 0;

	if (r < 0) {
		s->user->gone(s->arg);
		session_fail(s, r, err.text);
	}
}

void fake_session_done(struct session *s)
{
	if (s->user)
		s->user->gone(s->arg);
	buffer_done(&s->out);
	json_decref(s->result);
	*s = (struct session){0};
}

/* -------- programs -------- */

static void forget(struct program *p)
{
	if (p->agent->programs == p)
		p->agent->programs = NULL;
	free(p);
}

int program_start(struct agent *agent, const json_t *request, const struct program_owner *owner,
		  void *arg, struct program **ret, struct error *err)
{
	struct program *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->owner = owner;
	p->arg = arg;
	p->agent = agent;
	*ret = agent->programs = p;
	return 0;
}

pid_t program_pid(const struct program *p)
{
	return 1234;
}

const char *program_path(const struct program *p)
{
	return "fake";
}

const struct user *program_user(const struct program *p)
{
	static const struct user user = {.name = "somebody"};

	return &user;
}

int program_frame(struct program *p, const struct frame *frame, struct error *err)
{
	if (frame->type != FRAME_STDIN)
		return error_set(err, -EPROTO, "no input");
	p->received += frame->size;
	p->in_ended |= !frame->size;
	return 0;
}

uint64_t program_received(const struct program *p, bool *ended)
{
	*ended = p->in_ended;
	return p->received;
}

uint32_t program_credit(struct program *p)
{
	return PROTO_STDIN_WINDOW;
}

int program_signal(struct program *p, uint32_t signo, struct error *err)
{
	return 0;
}

/* Gives what is to be written. Returns whether all of it was. */
static bool give(struct program *p, int stream)
{
	while (p->written[stream] < p->wanted[stream]) {
		uint64_t n = p->wanted[stream] - p->written[stream];
		uint8_t *data;
		size_t room;

		if (p->owner->room(p->arg, stream + STREAM_OUT, &data, &room))
			abort();
		if (!room)
			return false;
		n = n < room ? n : room;
		for (uint64_t i = 0; i < n; i++)
			data[i] = fake_byte(stream, p->written[stream] + i);
		p->written[stream] += n;
		p->owner->output(p->arg, stream + STREAM_OUT, (size_t)n);
	}
	return true;
}

void program_resume(struct program *p)
{
	bool out = give(p, 0), err = give(p, 1);

	if (!out || !err || !p->exits || !p->started)
		return;
	p->owner->output(p->arg, STREAM_OUT, 0);
	p->owner->output(p->arg, STREAM_ERR, 0);
	p->owner->ended(p->arg, p->status);
	forget(p);
}

void program_hangup(struct program *p)
{
	forget(p);
}

void fake_program_started(struct program *p)
{
	if (!p->started && p->owner->started(p->arg))
		abort();
	p->started = true;
}

void fake_program_failed(struct program *p, int code)
{
	p->owner->failed(p->arg, code, "the test's failure");
	forget(p);
}

void fake_program_write(struct program *p, int stream, size_t n)
{
	p->wanted[stream] += n;
	program_resume(p);
}

void fake_program_exit(struct program *p, int status)
{
	p->exits = true;
	p->status = status;
	program_resume(p);
}
