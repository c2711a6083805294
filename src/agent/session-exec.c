/* SPDX-License-Identifier: Apache-2.0 */
/* exec: a program that lives and dies with its session. */

#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/program.h"
#include "lib/error.h"

struct exec {
	struct session *session;
	struct program *program;
};

static int on_started(void *arg)
{
	struct exec *e = arg;
	struct buffer *out = session_output(e->session);

	if (frame_append_u32(out, FRAME_STARTED, (uint32_t)program_pid(e->program)) ||
	    frame_append_u32(out, FRAME_CREDIT, program_credit(e->program)))
		return -ENOMEM;
	session_send(e->session);
	return 0;
}

static int on_room(void *arg, enum stream_number stream, uint8_t **data, size_t *size)
{
	struct exec *e = arg;

	*size = 0;
	if (session_full(e->session))
		return 0;
	*data = frame_reserve(session_output(e->session));
	*size = *data ? PROTO_MAX_PAYLOAD : 0;
	return *data ? 0 : -ENOMEM;
}

/* What on_room() reserved is a frame now. */
static void on_output(void *arg, enum stream_number stream, size_t n)
{
	struct exec *e = arg;

	frame_commit(session_output(e->session), stream == STREAM_ERR ? FRAME_STDERR : FRAME_STDOUT,
		     n);
	session_send(e->session);
}

static int on_credit(void *arg, uint32_t n)
{
	struct exec *e = arg;
	int r = frame_append_u32(session_output(e->session), FRAME_CREDIT, n);

	session_send(e->session);
	return r;
}

static void on_failed(void *arg, int code, const char *text)
{
	struct exec *e = arg;

	session_fail(e->session, code, text);
	free(e);
}

static void on_ended(void *arg, int status)
{
	struct exec *e = arg;

	if (frame_append_exit(session_output(e->session), status))
		session_fail(e->session, -ENOMEM, "the agent is out of memory");
	else
		session_finish(e->session);
	free(e);
}

static const struct program_owner owner = {
	.started = on_started,
	.room = on_room,
	.output = on_output,
	.credit = on_credit,
	.failed = on_failed,
	.ended = on_ended,
};

static int on_frame(void *arg, const struct frame *frame, struct error *err)
{
	struct exec *e = arg;

	return program_frame(e->program, frame, err);
}

static void on_resume(void *arg)
{
	struct exec *e = arg;

	program_resume(e->program);
}

static void on_gone(void *arg)
{
	struct exec *e = arg;

	program_hangup(e->program);
	free(e);
}

static const struct session_user user = {.frame = on_frame, .resume = on_resume, .gone = on_gone};

int session_exec(struct agent *agent, struct session *session, const json_t *request,
		 struct error *err)
{
	struct exec *e = calloc(1, sizeof(*e));
	int r = e ? program_start(agent, request, &owner, e, &e->program, err)
		  : error_errno(err, -ENOMEM, "cannot start a program");

	if (r) {
		free(e);
		return r;
	}
	e->session = session;
	session_give(session, &user, e);
	return 0;
}
