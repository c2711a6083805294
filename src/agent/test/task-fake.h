/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_TEST_TASK_FAKE_H
#define WISP_AGENT_TEST_TASK_FAKE_H

/*
 * For tests of tasks: sessions without connections, and programs that write and end when they are
 * told to. Stands in for session.c and program.c.
 */

#include "agent/agent.h"
#include "agent/program.h"

struct session {
	struct buffer out;
	const struct session_user *user; /* NULL: not, or no longer */
	void *arg;
	bool over;	  /* it has had its last frame */
	int code;	  /* of the error, when that was one */
	json_t *result;	  /* or this */
	uint64_t next[3]; /* positions, from the frames that came */
	bool ended[3];	  /* the stream has */
	unsigned exits;
};

/* The one that was started last is agent->programs, until it is hung up or has ended. */
struct program {
	struct agent *agent;
	const struct program_owner *owner; /* NULL: hung up */
	void *arg;
	uint64_t written[2], wanted[2]; /* bytes that the owner took, and that are to be written */
	bool in_ended, exits, started;
	uint64_t received;
	int status;
};

/* What a program's stream has at a position. */
uint8_t fake_byte(int stream, uint64_t position);

void fake_program_started(struct program *program);
void fake_program_failed(struct program *program, int code);
/* It writes n bytes more, as far as there is room. */
void fake_program_write(struct program *program, int stream, size_t n);
void fake_program_exit(struct program *program, int status);

/* Takes the frames out of the session, and aborts when they are not right. */
void fake_session_drain(struct session *session);
/* A frame of the client, as session.c takes it. */
void fake_session_frame(struct session *session, const struct frame *frame);
/* The client has gone. */
void fake_session_done(struct session *session);

#endif
