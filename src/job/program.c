/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage run: the program, a task of the agent in the first VM. Its output comes here, input and
 * signals go there; a connection that breaks is made again, and goes on at the positions.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/proto.h"
#include "job/input.h"
#include "job/job.h"
#include "job/migrate.h"
#include "job/mpi.h"
#include "job/save.h"
#include "job/talk.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"

#define TASK "main"	      /* what the agent knows the program by */
#define BEHIND_MAX (1u << 20) /* bytes that terminals may lag behind the program */
#define ACK_BYTES 65536u      /* of output, until the agent need not keep it */
#define AGAIN_NS 500000000ull
#define LOST_NS (20ull * 1000000000) /* without a way to the program */

struct program {
	struct job *job;
	struct talk *talk;
	uint32_t place; /* of the node that is talked to */
	struct loop_source *again;
	bool made;		      /* the task is there */
	bool attached, exited, known; /* known: its positions are ours */
	int code;
	uint64_t lost; /* since when; 0: it is not */
	uint64_t acked[2];
	struct input input;
	const struct terminal *from; /* whose input it is */
};

static void attach(struct program *p);
static void start(struct program *p);

/* -------- output -------- */

static void hold_back(struct program *p)
{
	talk_hold(p->talk, terminals_behind(p->job->terminals) > BEHIND_MAX);
}

/* What is here need not be kept there. */
static void acknowledge(struct program *p, unsigned i)
{
	uint64_t at = p->job->output[i].end;
	struct buffer frame = {0};

	if (at - p->acked[i] < ACK_BYTES)
		return;
	p->acked[i] = at;
	if (!frame_append_position(&frame, i ? STREAM_ERR : STREAM_OUT, at))
		talk_say_frame(p->talk, &frame);
	buffer_done(&frame);
}

static void take_output(struct program *p, unsigned i, const uint8_t *data, size_t n)
{
	int r = output_append(&p->job->output[i], data, n);

	if (r) {
		job_fail(p->job, "the program's output cannot be kept: %s", strerror(-r));
		return;
	}
	acknowledge(p, i);
	terminals_feed(p->job->terminals);
	hold_back(p);
}

void program_go_on(struct job *j)
{
	if (j->program->talk)
		hold_back(j->program);
}

/* -------- input -------- */

static void pass_input(struct program *p)
{
	const uint8_t *data;
	size_t n;

	while (p->attached && (n = input_next(&p->input, &data))) {
		talk_say(p->talk, FRAME_STDIN, data, n);
		input_went(&p->input, n);
		terminals_used(p->job->terminals, p->from, n);
	}
	if (p->attached && input_is_over(&p->input)) {
		p->input.ended = true;
		talk_say(p->talk, FRAME_STDIN, NULL, 0);
	}
}

void program_input(struct job *j, struct terminal *from, const uint8_t *data, size_t n)
{
	struct program *p = j->program;

	/* What comes before the program is there waits for it. */
	if (p->exited || p->input.ends || (n && input_add(&p->input, data, n))) {
		terminals_used(j->terminals, from, n);
		return;
	}
	p->from = from;
	p->input.ends = !n;
	pass_input(p);
}

/* -------- signals, checkpoints -------- */

json_t *program_tasks(const struct job *j)
{
	if (!program_runs(j))
		return json_array();
	return json_pack("[{s:s, s:s, s:I, s:I}]", "vm", j->vm[0].name, "id", TASK, "stdout",
			 (json_int_t)j->output[0].end, "stderr", (json_int_t)j->output[1].end);
}

bool program_runs(const struct job *j)
{
	return j->program->made && !j->program->exited;
}

int program_signal(struct job *j, int signo)
{
	uint8_t number[4] = {(uint8_t)signo};

	if (!j->program->attached)
		return -EAGAIN;
	return talk_say(j->program->talk, FRAME_SIGNAL, number, sizeof(number));
}

/* -------- attached -------- */

static void take_position(struct program *p, const struct frame *frame)
{
	struct job *j = p->job;
	enum stream_number stream;
	uint64_t at, lost;

	if (frame_position(frame, &stream, &at, NULL))
		return;
	if (stream == STREAM_IN) {
		lost = input_go_on(&p->input, at);
		if (lost)
			job_note(j, "%llu bytes of the program's input are lost",
				 (unsigned long long)lost);
		return;
	}
	p->acked[stream == STREAM_ERR] = at;
	if (at != j->output[stream == STREAM_ERR].end)
		output_set(&j->output[stream == STREAM_ERR], at);
}

static void on_frame(void *arg, unsigned type, const uint8_t *data, size_t n)
{
	struct program *p = arg;
	struct frame frame = {.type = type, .size = n, .data = data};

	switch (type) {
	case FRAME_STARTED:
		p->attached = p->known = true;
		p->lost = 0;
		break;
	case FRAME_POSITION:
		take_position(p, &frame);
		break;
	case FRAME_STDOUT:
	case FRAME_STDERR:
		take_output(p, type == FRAME_STDERR, data, n);
		break;
	case FRAME_CREDIT:
		input_grant(&p->input, frame_u32(&frame));
		pass_input(p);
		break;
	case FRAME_EXIT:
		p->exited = true;
		p->code = frame_exit_code(&frame);
		break;
	default:
		break;
	}
}

static void on_again(void *arg)
{
	struct program *p = arg;

	if (p->made)
		attach(p);
	else
		start(p);
}

/* Where it was asked for it is not any more, or soon will not be. */
static bool is_moving(const struct program *p)
{
	return p->place != p->job->vm[0].place || migrate_moves(p->job, &p->job->vm[0]);
}

/* The VM may be there all the same, and its program. */
static void lose(struct program *p, const char *reason)
{
	uint64_t now = io_now_ns();

	if (!p->lost && !is_moving(p))
		job_note(p->job, "the way to the program is lost: %s; trying again", reason);
	if (!p->lost || is_moving(p))
		p->lost = now;
	if (now - p->lost > LOST_NS)
		job_fail(p->job, "the program was lost: %s", reason);
	else
		loop_set_timer(p->again, AGAIN_NS, 0);
}

static void on_over(void *arg, int code, const char *reason)
{
	struct program *p = arg;
	bool refused = talk_was_refused(p->talk);

	p->talk = NULL;
	p->attached = false;
	if (p->exited)
		job_end(p->job, p->code, NULL);
	else if (refused && code == -ECANCELED)
		job_fail(p->job, "somebody else has taken the program over");
	else if (refused && code == -ENOENT && !is_moving(p))
		job_fail(p->job, "the program is not there any more: %s", reason);
	else
		lose(p, code ? reason : "its agent has hung up");
}

static const struct talk_ops attach_ops = {.frame = on_frame, .over = on_over};

static struct talk *talk_to(struct program *p, json_t *request, const struct talk_ops *ops)
{
	struct job *j = p->job;
	const char *node = json_string_value(json_array_get(j->spec.nodes, j->vm[0].place));

	p->place = j->vm[0].place;
	return talk_start(j->tubes, node, j->vm[0].name, request, ops, p);
}

/* Of a restored one the agent knows the positions; they are ours from then on. */
static void attach(struct program *p)
{
	json_t *request = json_pack("{s:s, s:s}", "op", "task-attach", "id", TASK);

	if (p->known || !p->job->spec.restore) {
		json_object_set_new(request, "stdout",
				    json_integer((json_int_t)p->job->output[0].end));
		json_object_set_new(request, "stderr",
				    json_integer((json_int_t)p->job->output[1].end));
	}
	p->talk = talk_to(p, request, &attach_ops);
	if (!p->talk)
		job_fail(p->job, "out of memory");
}

/* -------- its start -------- */

static void on_made(void *arg, const json_t *result)
{
	struct program *p = arg;

	p->made = true;
}

static void on_nothing(void *arg, unsigned type, const uint8_t *data, size_t n)
{
}

static void on_start_over(void *arg, int code, const char *reason)
{
	struct program *p = arg;
	bool refused = talk_was_refused(p->talk);

	p->talk = NULL;
	p->made |= refused && code == -EEXIST; /* its answer was lost */
	if (p->made)
		attach(p);
	else if (refused)
		job_end(p->job, code == -ENOENT ? 127 : 126, reason);
	else
		lose(p, code ? reason : "its agent has hung up");
}

static const struct talk_ops start_ops = {
	.frame = on_nothing, .result = on_made, .over = on_start_over};

static json_t *request_of(const struct job *j, struct error *err)
{
	json_t *names = json_array(), *argv = NULL, *request = NULL;
	struct mpi mpi = {.environment = j->spec.environment, .vms = names};
	int r;

	for (size_t i = 0; i < j->nvms; i++)
		json_array_append_new(names, json_string(j->vm[i].name));
	r = mpi_command(&mpi, j->spec.program, j->spec.label, &argv, err);
	if (!r) {
		request = json_pack("{s:s, s:s, s:o, s:o, s:s*, s:s*, s:b}", "op", "task-start",
				    "id", TASK, "argv", argv, "env", mpi_variables(&mpi), "cwd",
				    j->spec.directory, "user", j->spec.user, "stdin",
				    !j->spec.detach);
		if (j->spec.variables)
			json_object_update(json_object_get(request, "env"),
					   (json_t *)j->spec.variables);
		if (!j->spec.user && j->spec.uid > 0)
			json_object_set_new(request, "user", json_integer(j->spec.uid));
	}
	json_decref(names);
	return request;
}

static void start(struct program *p)
{
	struct error err = {"out of memory"};
	json_t *request = request_of(p->job, &err);

	p->talk = request ? talk_to(p, request, &start_ops) : NULL;
	if (!p->talk)
		job_fail(p->job, "%s", err.text);
}

/* -------- the stage -------- */

static void run(struct job *j)
{
	save_clock_start(j);
	drain_start(j);
	/* Without a program it is there until somebody ends it. */
	if (!json_array_size(j->spec.program))
		return;
	j->program->made = j->spec.restore;
	if (j->spec.restore)
		attach(j->program);
	else
		start(j->program);
}

static void leave(struct job *j)
{
	save_clock_stop(j);
	drain_stop(j);
	loop_set_timer(j->program->again, 0, 0);
	talk_end(take_ptr(j->program->talk));
	j->program->attached = false;
	j->program->exited = true;
}

const struct stage stage_run = {.name = "run", .begin = run, .leave = leave};

/* -------- life -------- */

int program_create(struct job *j)
{
	struct program *p = j->program = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->job = j;
	p->input.ends = j->spec.detach;
	return loop_add_timer(j->loop, on_again, p, &p->again);
}

void program_destroy(struct job *j)
{
	if (!j->program)
		return;
	talk_end(j->program->talk);
	loop_remove(&j->program->again);
	input_done(&j->program->input);
	free(j->program);
}
