/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_DIAL_H
#define WISP_JOB_DIAL_H

/*
 * A call to a program that speaks the node protocol on a UNIX socket of this machine: connected
 * and greeted, without waiting. For the thread of the loop.
 */

struct conn;
struct conn_ops;
struct error;
struct dial;
struct loop;

/*
 * code 0: conn is there, and the callee's from now on; else -errno with the reason. Once, not out
 * of a call; the dial has gone then.
 */
typedef void dial_fn(void *arg, int code, const char *reason, struct conn *conn);

/* The connection will tell ops (which outlive it) with ops_arg. Returns 0 or -errno. */
int dial_start(struct loop *loop, const char *socket, const struct conn_ops *ops, void *ops_arg,
	       dial_fn *fn, void *arg, struct dial **ret, struct error *err);

/* Before it is done: nothing is told. Accepts NULL. */
void dial_cancel(struct dial *dial);

#endif
