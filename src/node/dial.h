/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_DIAL_H
#define WISP_NODE_DIAL_H

/*
 * Calls the daemon of another node: its host is looked up, connected to (or a launcher is run),
 * and greeted, none of which waits. For the thread of the loop. SIGPIPE has to be ignored.
 */

#include "channel/greet.h"

struct conn;
struct dial;
struct launches;
struct loop;

struct dial_params {
	struct loop *loop;
	/* self, credentials, daemon, key, nkey; by the key where there is one. */
	const struct greet_params *greet;
	struct launches *launches; /* NULL: over TCP. Outlives all connections */
};

/*
 * code 0: the connection, the callee's to destroy, and to say who hears it (conn_set_ops()) before
 * it returns; else -errno with the reason. Once, not out of a call; the dial has gone then.
 */
typedef void dial_fn(void *arg, int code, const char *reason, struct conn *conn);

/* node: NAME or NAME@HOST[:PORT]. params may go, but for what they point to. 0 or -errno. */
int dial_start(const struct dial_params *params, const char *node, dial_fn *fn, void *arg,
	       struct dial **ret, struct error *err);

/* Nothing is told. Accepts NULL. */
void dial_cancel(struct dial *dial);

#endif
