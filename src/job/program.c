/* SPDX-License-Identifier: Apache-2.0 */
/* Stage run: the program, in the first VM; its output comes here, input and signals go there. */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/proto.h"
#include "job/job.h"
#include "job/mpi.h"
#include "job/save.h"
#include "job/talk.h"
#include "lib/cleanup.h"

#define TASK "main"	      /* what the agent knows the program by */
#define BEHIND_MAX (1u << 20) /* bytes that terminals may lag behind the program */

struct program {
	struct job *job;
	struct talk *talk;
	bool started, exited;
	int code;
	uint64_t credit;	     /* bytes of input that the agent takes */
	struct buffer input;	     /* that waits for credit */
	const struct terminal *from; /* whose input it is */
	bool input_ends, input_ended;
};

/* -------- output -------- */

static void hold_back(struct program *p)
{
	talk_hold(p->talk, terminals_behind(p->job->terminals) > BEHIND_MAX);
}

static void take_output(struct program *p, unsigned i, const uint8_t *data, size_t n)
{
	int r = output_append(&p->job->output[i], data, n);

	if (r) {
		job_fail(p->job, "the program's output cannot be kept: %s", strerror(-r));
		return;
	}
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
	while (p->started && p->credit && buffer_used(&p->input)) {
		size_t n = buffer_used(&p->input);

		n = n < p->credit ? n : (size_t)p->credit;
		n = n < PROTO_MAX_PAYLOAD ? n : PROTO_MAX_PAYLOAD;
		talk_say(p->talk, FRAME_STDIN, p->input.data + p->input.start, n);
		buffer_consume(&p->input, n);
		p->credit -= n;
		terminals_used(p->job->terminals, p->from, n);
	}
	if (p->started && p->input_ends && !p->input_ended && !buffer_used(&p->input)) {
		p->input_ended = true;
		talk_say(p->talk, FRAME_STDIN, NULL, 0);
	}
}

void program_input(struct job *j, struct terminal *from, const uint8_t *data, size_t n)
{
	struct program *p = j->program;

	/* What comes before the program is there waits for it. */
	if (p->exited || p->input_ends || (n && buffer_append(&p->input, data, n))) {
		terminals_used(j->terminals, from, n);
		return;
	}
	p->from = from;
	p->input_ends = !n;
	pass_input(p);
}

/* -------- signals -------- */

json_t *program_tasks(const struct job *j)
{
	if (!program_runs(j))
		return json_array();
	return json_pack("[{s:s, s:s, s:I, s:I}]", "vm", j->vm[0].name, "id", TASK, "stdout",
			 (json_int_t)j->output[0].end, "stderr", (json_int_t)j->output[1].end);
}

bool program_runs(const struct job *j)
{
	return j->program->started && !j->program->exited;
}

void program_signal(struct job *j, int signo)
{
	uint8_t number[4] = {(uint8_t)signo};

	talk_say(j->program->talk, FRAME_SIGNAL, number, sizeof(number));
}

/* -------- frames -------- */

static void on_frame(void *arg, unsigned type, const uint8_t *data, size_t n)
{
	struct program *p = arg;
	struct frame frame = {.type = type, .size = n, .data = data};

	switch (type) {
	case FRAME_STARTED:
		p->started = true;
		pass_input(p);
		break;
	case FRAME_STDOUT:
	case FRAME_STDERR:
		take_output(p, type == FRAME_STDERR, data, n);
		break;
	case FRAME_CREDIT:
		p->credit += frame_u32(&frame);
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

static void on_over(void *arg, int code, const char *reason)
{
	struct program *p = arg;

	p->talk = NULL;
	if (p->exited)
		job_end(p->job, p->code, NULL);
	else if (!p->started && code)
		job_end(p->job, code == -ENOENT ? 127 : 126, reason);
	else
		job_fail(p->job, "the program was lost: %s", code ? reason : "its VM has hung up");
}

static const struct talk_ops talk_ops = {.frame = on_frame, .over = on_over};

/* -------- the stage -------- */

static json_t *request_of(const struct job *j, struct error *err)
{
	json_t *names = json_array(), *argv = NULL, *request = NULL;
	struct mpi mpi = {.environment = j->spec.environment, .vms = names};
	int r;

	for (size_t i = 0; i < j->nvms; i++)
		json_array_append_new(names, json_string(j->vm[i].name));
	r = mpi_command(&mpi, j->spec.program, j->spec.label, &argv, err);
	if (!r) {
		request = json_pack("{s:s, s:o, s:o, s:s*, s:s*}", "op", "exec", "argv", argv,
				    "env", mpi_variables(&mpi), "cwd", j->spec.directory, "user",
				    j->spec.user);
		if (j->spec.variables)
			json_object_update(json_object_get(request, "env"),
					   (json_t *)j->spec.variables);
		if (!j->spec.user && j->spec.uid > 0)
			json_object_set_new(request, "user", json_integer(j->spec.uid));
	}
	json_decref(names);
	return request;
}

static void run(struct job *j)
{
	const char *node = json_string_value(json_array_get(j->spec.nodes, j->vm[0].place));
	struct program *p = j->program;
	struct error err = {"out of memory"};
	json_t *request;

	save_clock_start(j);

	/* Without a program it is there until somebody ends it. */
	if (!json_array_size(j->spec.program))
		return;
	request = request_of(j, &err);
	if (!request) {
		job_fail(j, "%s", err.text);
		return;
	}
	p->talk = talk_start(j->tubes, node, j->vm[0].name, request, &talk_ops, p);
	if (!p->talk)
		job_fail(j, "out of memory");
}

static void leave(struct job *j)
{
	save_clock_stop(j);
	talk_end(take_ptr(j->program->talk));
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
	p->input_ends = j->spec.detach;
	return 0;
}

void program_destroy(struct job *j)
{
	if (!j->program)
		return;
	talk_end(j->program->talk);
	buffer_done(&j->program->input);
	free(j->program);
}
