/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks of the agent: requests and frames of clients that come and go, while programs write. What
 * a client gets is what was written, in order and at the positions that were told.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/task.h"
#include "agent/test/task-fake.h"
#include "input.h"
#include "lib/error.h"

#define SESSIONS 3
#define WINDOW 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
	struct agent agent;
	struct session sessions[SESSIONS];
};

/* Any number, often one of those that matter. */
static uint64_t number(struct input *in, const struct state *st)
{
	const struct task *t = st->agent.tasks;
	unsigned how = input_u8(in);

	if (how < 64 || !t)
		return input_number(in, 8);
	if (how < 128)
		return t->out[how & 1].start + (how >> 1 & 3);
	if (how < 192)
		return t->out[how & 1].end - (how >> 1 & 3);
	return input_number(in, 2) * (uint64_t)257;
}

static json_t *request(struct input *in, const struct state *st)
{
	static const char *const ids[] = {"a", "b.c-d_e", "", "-x", "a/b"};
	json_t *value = json_pack("{s:s}", "id", ids[input_u8(in) % 5]);
	unsigned members = input_u8(in);

	if (members & 1)
		json_object_set_new(value, "stdout", json_integer((json_int_t)number(in, st)));
	if (members & 2)
		json_object_set_new(value, "stderr", json_integer((json_int_t)number(in, st)));
	if (members & 4)
		json_object_set_new(value, "owner", json_integer(members >> 4));
	if (members & 8)
		json_object_set_new(value, "kill", json_true());
	if (members & 16)
		json_object_set_new(value, "signal", json_integer((json_int_t)number(in, st)));
	if (members & 32)
		json_object_set_new(value, "stdin", json_false());
	return value;
}

static void ask(struct state *st, struct input *in)
{
	struct session *s = &st->sessions[input_u8(in) % SESSIONS];
	uid_t caller = input_u8(in) % 3;
	json_t *value = request(in, st);
	struct error err;
	struct task *t;
	int r;

	fake_session_done(s);
	switch (input_u8(in) % 5) {
	case 0:
		r = task_start(&st->agent, s, caller, value, &err);
		break;
	case 1:
		r = task_find(&st->agent, caller, value, &t, &err);
		if (!r)
			r = task_attach(t, s, value, &err);
		break;
	case 2:
		r = task_find(&st->agent, caller, value, &t, &err);
		if (!r && caller && t->owner != caller)
			abort();
		if (!r)
			r = task_remove(t, value, &err);
		break;
	case 3:
		r = task_find(&st->agent, caller, value, &t, &err);
		if (!r)
			r = task_signal(t, value, &err);
		break;
	default:
		json_decref(task_list(&st->agent, caller));
		r = 0;
		break;
	}
	if (r > 0)
		abort();
	json_decref(value);
}

static void say(struct state *st, struct input *in)
{
	struct session *s = &st->sessions[input_u8(in) % SESSIONS];
	struct buffer b = {0};
	struct frame frame;

	switch (input_u8(in) % 3) {
	case 0:
		frame_append_position(&b, input_u8(in) % 4, number(in, st));
		break;
	case 1:
		frame_append(&b, FRAME_STDIN, "0123456789", input_u8(in) % 11);
		break;
	default:
		frame_append_u32(&b, FRAME_SIGNAL, input_u8(in));
		break;
	}
	if (frame_parse(&b, &frame, NULL) != 1)
		abort();
	fake_session_frame(s, &frame);
	buffer_done(&b);
}

static void act(struct state *st, struct input *in)
{
	struct program *p = st->agent.programs;
	unsigned how = input_u8(in);

	if (!p)
		return;
	if (how == 0 && !p->started)
		fake_program_failed(p, -2);
	else if (how < 8)
		fake_program_exit(p, (int)how << 8);
	else if (how < 64 || !p->started)
		fake_program_started(p);
	else
		fake_program_write(p, how & 1, input_number(in, 2) * (size_t)(how & 2 ? 4 : 1));
}

static void check(const struct state *st)
{
	unsigned n = 0;

	for (const struct task *t = st->agent.tasks; t; t = t->next, n++)
		for (int i = 0; i < 2; i++)
			if (t->out[i].end - t->out[i].start > t->out[i].size ||
			    (t->session &&
			     (t->sent[i] > t->out[i].end || t->sent[i] < t->out[i].start)))
				abort();
	if (n > TASKS_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state st = {.agent.task_window = WINDOW};
	struct input in = {.data = data, .size = size};

	log_init(&st.agent.log, "fuzz", -1, LOG_ERROR);
	while (in.pos < in.size) {
		switch (input_u8(&in) % 4) {
		case 0:
			ask(&st, &in);
			break;
		case 1:
			say(&st, &in);
			break;
		case 2:
			act(&st, &in);
			break;
		default:
			fake_session_drain(&st.sessions[input_u8(&in) % SESSIONS]);
			break;
		}
		check(&st);
	}
	for (int i = 0; i < SESSIONS; i++)
		fake_session_done(&st.sessions[i]);
	while (st.agent.tasks) {
		if (st.agent.tasks->program)
			program_hangup(st.agent.tasks->program);
		task_destroy(st.agent.tasks);
	}
	return 0;
}
