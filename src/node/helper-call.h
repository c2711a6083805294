/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_HELPER_CALL_H
#define WISP_NODE_HELPER_CALL_H

/*
 * The daemon's way to wisp-node-helper: starts it with a job and hears what came of it, without
 * waiting. Whoever wants to hear may lose interest; the job is done all the same. For the thread of
 * the loop.
 */

#include <jansson.h>
#include <sys/types.h>

struct error;
struct helper_call;
struct loop;

/* Those under way. Zero to begin with. */
struct helper_calls {
	struct loop *loop;
	struct helper_call *first;
};

struct helper_ops {
	/* The job is done (0), or -errno with the reason. */
	void (*done)(void *arg, int code, const char *reason);
	/*
	 * NULL, or: the job becomes a program that stays, done(0) says that it runs, and this that
	 * it has ended, with its status as of waitpid(). Not after another done().
	 */
	void (*ended)(void *arg, int status);
};

/*
 * socket: the program's descriptor 0, or -1; it stays the caller's. The call is valid until done()
 * or, for one that stays, ended() was called, or helper_forget(). Neither is called out of this.
 */
int helper_start(struct helper_calls *calls, const json_t *job, int socket,
		 const struct helper_ops *ops, void *arg, struct helper_call **ret,
		 struct error *err);

pid_t helper_pid(const struct helper_call *call);

/* Nobody hears any more. Sets the pointer to NULL; accepts a pointer to NULL. */
void helper_forget(struct helper_call **call);

/*
 * Waits no longer for a job that has become a user's program: that can be stopped, or others hold
 * its standard output. done() comes as for one that was killed, maybe out of this; what the program
 * has begun goes on.
 */
void helper_kill(struct helper_call *call);

/* What is under way goes on until this process ends; jobs that have become users go on alone. */
void helper_calls_done(struct helper_calls *calls);

#endif
