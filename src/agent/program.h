/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_PROGRAM_H
#define WISP_AGENT_PROGRAM_H

/*
 * A program that runs for somebody, its owner: a session (session-exec.c) or a task (task.h).
 * It is fed within the credit that was granted, read while the owner has room, signalled and
 * reaped. Everything belongs to the thread of the loop.
 */

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/proto.h"

struct agent;
struct error;
struct program;
struct user;

struct program_owner {
	/* It runs. -ENOMEM ends it. */
	int (*started)(void *owner);
	/* Room for output: *size 0 when there is none now. Returns 0 or -ENOMEM. */
	int (*room)(void *owner, enum stream_number stream, uint8_t **data, size_t *size);
	/* n bytes are there; 0: the stream has ended. */
	void (*output)(void *owner, enum stream_number stream, size_t n);
	/* More bytes of stdin may be sent. Returns 0 or -ENOMEM. */
	int (*credit)(void *owner, uint32_t n);
	/* It could not be run, or was hung up for want of memory. No longer the owner's. */
	void (*failed)(void *owner, int code, const char *text);
	/* All it wrote was given, status is that of waitpid(). Gone when this returns. */
	void (*ended)(void *owner, int status);
};

/* Runs what the request (exec's members) asks for; the owner hears of it later. */
int program_start(struct agent *agent, const json_t *request, const struct program_owner *owner,
		  void *arg, struct program **ret, struct error *err);

pid_t program_pid(const struct program *program);
const char *program_path(const struct program *program);
const struct user *program_user(const struct program *program);

/*
 * A frame of the client for the program: STDIN, SIGNAL, WINSIZE. -EPROTO when it is none or
 * beyond the credit.
 */
int program_frame(struct program *program, const struct frame *frame, struct error *err);

/* Bytes of stdin that have come, and whether its end has. */
uint64_t program_received(const struct program *program, bool *ended);

/* What a client that is new may send: earlier credit is void. */
uint32_t program_credit(struct program *program);

/* To the program's process group; -EINVAL when there is no such signal. */
int program_signal(struct program *program, uint32_t signo, struct error *err);

/* The owner has room again. The program may end by this. */
void program_resume(struct program *program);

/* Nobody waits for it: SIGHUP, later SIGKILL. It frees itself when it was reaped. */
void program_hangup(struct program *program);

/* The loop's SIGCHLD: reaps everything, also what init inherited. */
void programs_reap(struct agent *agent);
void programs_done(struct agent *agent);

/* As init: runs one program with the console as output; its end is logged. */
int program_start_plain(struct agent *agent, const char *path, struct error *err);

#endif
