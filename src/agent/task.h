/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_TASK_H
#define WISP_AGENT_TASK_H

/*
 * Tasks: programs that no session owns, with their output in windows until somebody has it
 * (docs/formats/agent.md, Tasks). task.c is the task and its program, task-table.c finds and
 * lists them, task-attach.c is the session that is attached to one. Everything belongs to
 * the thread of the loop.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/window.h"

struct agent;
struct error;
struct program;
struct session;

#define TASK_ID_MAX 64
#define TASKS_MAX 32	    /* of one agent */
#define TASKS_MAX_OTHERS 16 /* of them, of others than root */

struct task {
	struct agent *agent;
	struct task *next;
	char id[TASK_ID_MAX + 1];
	uid_t owner; /* of the session that started it */
	char user[64];
	char *path;
	pid_t pid;
	struct program *program; /* NULL: it has ended */
	bool started, terminal;
	int status;		 /* of waitpid(), when it has ended */
	uint64_t received;	 /* of stdin, when it has ended */
	bool input_ended;	 /* likewise */
	struct window out[2];	 /* stdout, stderr */
	struct session *starter; /* waits for it to run, or NULL */
	struct session *session; /* attached, or NULL */
	uint64_t sent[2];	 /* positions up to which that one was sent */
	bool end_sent[2];
};

/* task.c. Each answers the session in the end when it returns 0. */
int task_start(struct agent *agent, struct session *session, uid_t caller, const json_t *request,
	       struct error *err);
int task_signal(struct task *task, const json_t *request, struct error *err);
int task_remove(struct task *task, const json_t *request, struct error *err);

/* task-table.c. */
/* -EEXIST with its state when the caller has one of that id, -ENOSPC when there are too many. */
int task_create(struct agent *agent, const char *id, uid_t caller, struct task **ret,
		struct error *err);
/* Forgets it; its program and sessions are no longer its own. */
void task_destroy(struct task *task);
void tasks_done(struct agent *agent);
/* The caller's task that the request names. -ENOENT. */
int task_find(struct agent *agent, uid_t caller, const json_t *request, struct task **ret,
	      struct error *err);
json_t *task_describe(const struct task *task);
json_t *task_list(const struct agent *agent, uid_t caller);

/* task-attach.c */
int task_attach(struct task *task, struct session *session, const json_t *request,
		struct error *err);
/* Sends what is there to the attached session, and the end. */
void task_pump(struct task *task);
/* The program takes more input. -ENOMEM. */
int task_credit(struct task *task, uint32_t n);
/* Ends the attached session with an ERROR. */
void task_detach(struct task *task, int code, const char *text);

#endif
