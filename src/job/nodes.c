/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's end of the tree: joins, asks, and comes back. */

#include "job/nodes.h"

#include <errno.h>
#include <stdlib.h>

#include "channel/conn.h"
#include "job/dial.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "tree/tree.h"

#define AGAIN_NS 500000000ull
#define TICK_NS 250000000ull
#define JOIN_MS 30000u

struct question {
	struct question *next;
	json_int_t id;
	uint64_t deadline;
	bool over; /* answered; told by the next tick at the latest */
	struct gather answer;
	nodes_fn *fn;
	void *arg;
};

struct nodes {
	struct nodes_params p;
	struct dial *dial; /* one of both, or neither */
	struct conn *conn;
	struct loop_source *again, *tick;
	struct question *questions;
	json_int_t next_id;
	bool joined;
};

static void begin(void *arg);

/* -------- questions -------- */

static struct question *find(struct nodes *n, json_int_t id)
{
	struct question *q = n->questions;

	while (q && (q->id != id || q->over))
		q = q->next;
	return q;
}

static void fail_all(struct nodes *n, int code, const char *reason)
{
	for (struct question *q = n->questions; q; q = q->next)
		if (!q->over) {
			gather_fail(&q->answer, code, reason);
			q->over = true;
		}
}

/* Tells what is over. Callbacks may ask, and forget. */
static void tell(struct nodes *n)
{
	struct question **at = &n->questions;

	while (*at) {
		struct question *q = *at;

		if (!q->over) {
			at = &q->next;
			continue;
		}
		*at = q->next;
		if (q->fn)
			q->fn(q->arg, &q->answer);
		gather_done(&q->answer);
		free(q);
		at = &n->questions;
	}
}

static void on_tick(void *arg)
{
	struct nodes *n = arg;
	uint64_t now = io_now_ns();

	for (struct question *q = n->questions; q; q = q->next)
		if (!q->over && q->deadline < now) {
			gather_fail(&q->answer, -ETIMEDOUT, "no answer from all nodes in time");
			q->over = true;
		}
	tell(n);
}

static void ask(struct nodes *n, json_t *request, unsigned timeout_ms, nodes_fn *fn, void *arg)
{
	struct question *q = calloc(1, sizeof(*q)), **at = &n->questions;
	struct error err;
	int r;

	if (!q || gather_init(&q->answer))
		abort(); /* a few bytes: there is nothing sensible left to do */
	q->id = ++n->next_id;
	q->deadline = timeout_ms == NODES_NO_LIMIT
			      ? UINT64_MAX
			      : io_now_ns() + (timeout_ms ? timeout_ms : NODES_ASK_MS) * 1000000ull;
	q->fn = fn;
	q->arg = arg;
	while (*at)
		at = &(*at)->next;
	*at = q;
	json_object_set_new(request, "id", json_integer(q->id));
	r = n->conn ? conn_send(n->conn, request, &err)
		    : error_set(&err, -EHOSTDOWN, "the daemon of this node is not there");
	if (r) {
		gather_fail(&q->answer, r, err.text);
		q->over = true;
	}
	json_decref(request);
}

void nodes_ask(struct nodes *n, json_t *request, const char *to, unsigned timeout_ms, nodes_fn *fn,
	       void *arg)
{
	if (to)
		json_object_set_new(request, "to", json_string(to));
	ask(n, request, timeout_ms, fn, arg);
}

void nodes_forget(struct nodes *n, const void *arg)
{
	for (struct question *q = n->questions; q; q = q->next)
		if (q->arg == arg)
			q->fn = NULL;
}

/* -------- the connection -------- */

static void call_again(struct nodes *n)
{
	loop_set_timer(n->again, AGAIN_NS, 0);
}

static void lost(struct nodes *n, const char *reason)
{
	conn_destroy(take_ptr(n->conn));
	fail_all(n, -EHOSTDOWN, reason);
	n->joined = false;
	call_again(n);
	n->p.ops->down(n->p.arg, reason);
}

static void on_message(void *arg, json_t *message)
{
	struct nodes *n = arg;
	json_int_t id = json_integer_value(json_object_get(message, "re"));
	struct question *q = id ? find(n, id) : NULL;
	struct error err;
	int r;

	if (json_object_get(message, "event")) {
		n->p.ops->event(n->p.arg, message);
		return;
	}
	if (!q) /* too late: nobody waits for it any more */
		return;
	r = gather_add(&q->answer, message, &err);
	if (r < 0)
		gather_fail(&q->answer, r, err.text);
	q->over = r;
	if (r)
		tell(n);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t size)
{
}

static void on_closed(void *arg, int code, const char *reason)
{
	lost(arg, code ? reason : "the daemon of this node has ended");
}

static const struct conn_ops conn_ops = {on_message, on_data, NULL, on_closed};

static void on_joined(void *arg, const struct gather *answer)
{
	struct nodes *n = arg;

	if (answer->code) {
		if (n->conn)
			conn_fail(n->conn, answer->code, answer->why.text);
		return;
	}
	n->joined = true;
	n->p.ops->up(n->p.arg, answer);
}

static void on_linked(void *arg, int code, const char *reason, struct conn *conn)
{
	struct nodes *n = arg;

	n->dial = NULL;
	if (code) {
		call_again(n);
		n->p.ops->down(n->p.arg, reason);
		return;
	}
	n->conn = conn;
	ask(n,
	    json_pack("{s:s, s:s, s:i, s:O}", "op", "join", "session", n->p.session, "place", 0,
		      "nodes", n->p.names),
	    JOIN_MS, on_joined, n);
}

static void begin(void *arg)
{
	struct nodes *n = arg;
	struct error err;
	int r;

	if (n->dial || n->conn)
		return;
	r = dial_start(n->p.loop, n->p.socket, &conn_ops, n, on_linked, n, &n->dial, &err);
	if (r) {
		call_again(n);
		n->p.ops->down(n->p.arg, err.text);
	}
}

/* -------- life -------- */

int nodes_create(const struct nodes_params *params, struct nodes **ret, struct error *err)
{
	struct nodes *n = calloc(1, sizeof(*n));
	int r = n ? 0 : -ENOMEM;

	if (!r) {
		n->p = *params;
		json_incref(n->p.names);
		r = loop_add_timer(n->p.loop, begin, n, &n->again);
	}
	if (!r)
		r = loop_add_timer(n->p.loop, on_tick, n, &n->tick);
	if (!r)
		r = loop_set_timer(n->tick, TICK_NS, TICK_NS);
	if (!r)
		r = loop_set_timer(n->again, 1, 0);
	if (r) {
		nodes_destroy(n);
		return error_errno(err, r, "cannot set up the connection to the nodes");
	}
	*ret = n;
	return 0;
}

void nodes_destroy(struct nodes *n)
{
	if (!n)
		return;
	dial_cancel(n->dial);
	conn_destroy(n->conn);
	while (n->questions) {
		struct question *q = n->questions;

		n->questions = q->next;
		gather_done(&q->answer);
		free(q);
	}
	loop_remove(&n->again);
	loop_remove(&n->tick);
	json_decref(n->p.names);
	free(n);
}
