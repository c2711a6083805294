/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_CLIENT_TASK_H
#define WISP_AGENT_CLIENT_TASK_H

/*
 * The host's side of tasks (docs/formats/agent.md, Tasks): short requests, which block, and
 * struct task_client, which does not. Any thread; an object belongs to one at a time.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/proto.h"

struct client_exec;
struct error;

/* -------- requests: a fresh connection each, 10 s at most -------- */

/*
 * Starts a program (of exec, in_fd says whether it has an input: -1 if not; the descriptors are
 * not used) as task id. *ret, when not NULL, gets its entry as of client_task_list(). -EEXIST
 * with its state in err when there is one: attach to it.
 */
int client_task_start(int fd, const char *id, const struct client_exec *exec, json_t **ret,
		      struct error *err);
/* An array. */
int client_task_list(int fd, json_t **ret, struct error *err);
int client_task_signal(int fd, const char *id, int signo, struct error *err);
/* -EBUSY when it runs and is not to be killed, -ENOENT. */
int client_task_remove(int fd, const char *id, bool kill, struct error *err);

/*
 * Attaches and passes the streams of exec (only those of its members) on, with signals as
 * client_exec(), but SIGHUP leaves the task alone. What was written to the descriptors is
 * acknowledged. Returns 0 and *code as client_exec(), -ECANCELED when another client took it,
 * -ECONNABORTED when it was left, or another negative errno: the task goes on.
 */
int client_task_attach(int fd, const char *id, const struct client_exec *exec, int *code,
		       struct error *err);

/* -------- a session that does not block, for event loops -------- */

/*
 * It outlives connections: what is attached again goes on where it was. It keeps what was not
 * taken of the input, about PROTO_STDIN_WINDOW bytes at most.
 *
 *	task_client_create(id, &ops, arg, &client);
 *	task_client_attach(client, fd);			// and again, after an error
 *	watch fd for task_client_events(client), asked again after each call
 *	task_client_run(client, events, &err)		// 1: it has ended
 */
struct task_client;

struct task_client_ops {
	/*
	 * Output comes from this position on (told at each attach, before the first byte). Before
	 * what was had: the guest has gone back to a checkpoint, cut there. May be NULL.
	 */
	void (*position)(void *arg, enum stream_number stream, uint64_t position);
	/*
	 * Output at a position; n 0: the stream has ended. Returns how many bytes were taken: after
	 * fewer than n the rest waits for task_client_resume(). A negative errno ends the session.
	 */
	ssize_t (*output)(void *arg, enum stream_number stream, uint64_t position, const void *data,
			  size_t n);
	/*
	 * The guest wants stdin from a position that this object has nothing of: seek there.
	 * 0, or a negative errno: it cannot be had, and the session ends. NULL: any position will
	 * do as long as nothing was given yet, none after that.
	 */
	int (*input)(void *arg, uint64_t position);
};

/* id is copied, ops must stay. */
int task_client_create(const char *id, const struct task_client_ops *ops, void *arg,
		       struct task_client **ret, struct error *err);
void task_client_destroy(struct task_client *client);

/* That output was had up to there, by a process before this one: attach goes on behind it. */
void task_client_seek(struct task_client *client, enum stream_number stream, uint64_t position);

/*
 * Begin a session on a fresh connection, which stays the caller's and should not block; the
 * earlier one is forgotten. start: task_client_run() returns 1 when the program runs; then
 * attach by another connection. attach: goes on at the positions that were had, or (afresh)
 * at all that the guest keeps, which is right after a restore from a checkpoint, and for the
 * first time. exec: a program of the session's own (client_exec()), without positions.
 */
int task_client_start(struct task_client *client, int fd, const struct client_exec *exec,
		      struct error *err);
int task_client_attach(struct task_client *client, int fd, bool afresh, struct error *err);
int task_client_exec(struct task_client *client, int fd, const struct client_exec *exec,
		     struct error *err);

/* EPOLLIN, EPOLLOUT: what to wait for. 0: for task_client_resume(). */
uint32_t task_client_events(const struct task_client *client);

/*
 * Does what can be done without waiting. 0: goes on; 1: it has ended (or runs, after start). Else
 * the session is over: -ECANCELED another client has attached or the task was removed, -ERANGE the
 * positions are not what the guest has (afresh helps), -ENOENT no such task, -EEXIST (start) there
 * is one; -EPIPE and others: the connection broke.
 */
int task_client_run(struct task_client *client, uint32_t events, struct error *err);

/* Output is taken again; task_client_events() says more. What it returns as task_client_run(). */
int task_client_resume(struct task_client *client, struct error *err);

/* 0..255 or 128 + signal, when it has ended. */
int task_client_code(const struct task_client *client);

/* All before the position is safe: the guest need not keep it. */
int task_client_ack(struct task_client *client, enum stream_number stream, uint64_t position);

/* The program runs, and its streams go. */
bool task_client_attached(const struct task_client *client);

/* How many bytes of input are taken now; 0 also until the agent has told where it goes on. */
size_t task_client_room(const struct task_client *client);
/* n is at most that. 0 or -ENOMEM. */
int task_client_input(struct task_client *client, const void *data, size_t n);
int task_client_input_end(struct task_client *client);

/* -ENOTCONN while it is not attached. */
int task_client_signal(struct task_client *client, int signo);
int task_client_winsize(struct task_client *client, unsigned rows, unsigned cols);

#endif
