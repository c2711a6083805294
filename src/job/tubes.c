/* SPDX-License-Identifier: Apache-2.0 */
/* Many streams to VMs over one connection. */

#include "job/tubes.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "job/dial.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

struct tube {
	struct tube *next;
	struct tubes *tubes;
	char *node, *vm, *what;
	const struct tube_ops *ops;
	void *arg;
	json_int_t id;	 /* of its request */
	uint32_t stream; /* 0: not asked for */
	bool open;	 /* what is written can go */
	bool held;	 /* nothing is granted: owed */
	size_t owed;
	bool left; /* by its user: gone when the stream is */
	int code;  /* with dead */
	bool dead;
	struct error why;
};

struct tubes {
	struct tubes_params p;
	struct dial *dial;
	struct conn *conn;
	struct loop_source *soon; /* what is told out of no call */
	struct tube *first;
	json_int_t id;
};

static void tube_free(struct tube *t)
{
	free(t->node);
	free(t->vm);
	free(t->what);
	free(t);
}

static void tube_unlink(struct tube *t)
{
	struct tube **at = &t->tubes->first;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
}

static void tell_soon(struct tubes *s)
{
	loop_set_timer(s->soon, 1, 0);
}

static void die(struct tube *t, int code, const char *reason)
{
	if (t->dead)
		return;
	t->dead = true;
	t->code = error_set(&t->why, code, "%s", reason);
	tell_soon(t->tubes);
}

static void die_all(struct tubes *s, int code, const char *reason)
{
	for (struct tube *t = s->first; t; t = t->next)
		die(t, code, reason);
}

/* -------- opening -------- */

static void ask_for(struct tubes *s, struct tube *t)
{
	struct error err;
	json_t *request;
	int r;

	t->stream = conn_next_stream(s->conn, 0);
	t->id = ++s->id;
	request = json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:I}", "op", "connect", "id", t->id,
			    "node", t->node, "cluster", s->p.cluster, "vm", t->vm, "what", t->what,
			    "stream", (json_int_t)t->stream);
	r = conn_open(s->conn, t->stream, &err);
	if (!r)
		r = conn_send(s->conn, request, &err);
	if (r)
		die(t, r, err.text);
	json_decref(request);
}

static void say_session(struct tubes *s)
{
	json_t *request = json_pack("{s:s, s:I, s:s}", "op", "session", "id", ++s->id, "session",
				    s->p.session);
	struct error err;

	conn_send(s->conn, request, &err);
	json_decref(request);
}

static void on_dialled(void *arg, int code, const char *reason, struct conn *conn)
{
	struct tubes *s = arg;

	s->dial = NULL;
	if (code) {
		die_all(s, code, reason);
		return;
	}
	s->conn = conn;
	say_session(s);
	for (struct tube *t = s->first; t; t = t->next)
		if (!t->dead && !t->stream)
			ask_for(s, t);
}

/* -------- what comes -------- */

static struct tube *find_id(struct tubes *s, json_int_t id)
{
	struct tube *t = s->first;

	while (t && t->id != id)
		t = t->next;
	return t;
}

static struct tube *find_stream(struct tubes *s, uint32_t stream)
{
	struct tube *t = s->first;

	while (t && (t->stream != stream || t->dead))
		t = t->next;
	return t;
}

/* The other side has not ended in peace. */
static void reset(struct tubes *s, json_int_t stream)
{
	struct tube *t =
		stream > 0 && stream <= UINT32_MAX ? find_stream(s, (uint32_t)stream) : NULL;

	if (t)
		tube_fail(t, -ECONNRESET, "the connection to the VM was cut");
}

static void on_message(void *arg, json_t *message)
{
	struct tubes *s = arg;
	json_int_t id = json_integer_value(json_object_get(message, "re"));
	json_int_t code = json_integer_value(json_object_get(message, "errno"));
	const char *reason = json_string_value(json_object_get(message, "error"));
	const char *event = json_string_value(json_object_get(message, "event"));
	struct tube *t = id ? find_id(s, id) : NULL;

	if (event && !strcmp(event, "reset"))
		reset(s, json_integer_value(json_object_get(message, "stream")));
	if (!t || t->open)
		return;
	if (code) {
		conn_end(s->conn, t->stream);
		die(t, code > 0 ? -(int)code : -EPROTO, reason ? reason : "refused");
		return;
	}
	t->open = true;
	if (t->ops->room && !t->left)
		t->ops->room(t->arg);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct tubes *s = arg;
	struct tube *t = find_stream(s, stream);

	if (t && t->held && !t->left)
		t->owed += n;
	else if (n)
		conn_grant(s->conn, stream, n);
	if (!t)
		return;
	if (!n) {
		conn_end(s->conn, stream);
		die(t, 0, "");
	} else if (!t->left) {
		t->ops->data(t->arg, data, n);
	}
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct tube *t = find_stream(arg, stream);

	if (t && !t->left && t->ops->room)
		t->ops->room(t->arg);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct tubes *s = arg;

	conn_destroy(take_ptr(s->conn));
	die_all(s, code ? code : -EHOSTDOWN, code ? reason : "the daemon of this node has ended");
}

static const struct conn_ops conn_ops = {on_message, on_data, on_sent, on_closed};

/* -------- what is due -------- */

static void make_sure(struct tubes *s)
{
	bool wanted = false;
	struct error err;
	int r;

	for (const struct tube *t = s->first; t; t = t->next)
		wanted |= !t->dead && !t->stream;
	if (!wanted || s->dial)
		return;
	if (s->conn) {
		for (struct tube *t = s->first; t; t = t->next)
			if (!t->dead && !t->stream)
				ask_for(s, t);
		return;
	}
	r = dial_start(s->p.loop, s->p.socket, &conn_ops, s, on_dialled, s, &s->dial, &err);
	if (r)
		die_all(s, r, err.text);
}

/* Tells of the dead, each of which may open and close others. */
static void on_soon(void *arg)
{
	struct tubes *s = arg;
	struct tube *t = s->first;

	while (t) {
		if (!t->dead) {
			t = t->next;
			continue;
		}
		tube_unlink(t);
		if (!t->left)
			t->ops->closed(t->arg, t->code, t->why.text);
		tube_free(t);
		t = s->first;
	}
	make_sure(s);
}

/* -------- for its users -------- */

int tubes_create(const struct tubes_params *params, struct tubes **ret, struct error *err)
{
	struct tubes *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (!r) {
		s->p = *params;
		r = loop_add_timer(s->p.loop, on_soon, s, &s->soon);
	}
	if (r) {
		tubes_destroy(s);
		return error_errno(err, r, "cannot set up the streams to VMs");
	}
	*ret = s;
	return 0;
}

void tubes_destroy(struct tubes *s)
{
	if (!s)
		return;
	dial_cancel(s->dial);
	conn_destroy(s->conn);
	while (s->first) {
		struct tube *t = s->first;

		s->first = t->next;
		tube_free(t);
	}
	loop_remove(&s->soon);
	free(s);
}

int tube_open(struct tubes *s, const char *node, const char *vm, const char *what,
	      const struct tube_ops *ops, void *arg, struct tube **ret)
{
	struct tube *t = calloc(1, sizeof(*t)), **at = &s->first;

	if (!t)
		return -ENOMEM;
	*t = (struct tube){.tubes = s,
			   .node = strdup(node),
			   .vm = strdup(vm),
			   .what = strdup(what),
			   .ops = ops,
			   .arg = arg};
	if (!t->node || !t->vm || !t->what) {
		tube_free(t);
		return -ENOMEM;
	}
	while (*at)
		at = &(*at)->next;
	*at = t;
	tell_soon(s);
	*ret = t;
	return 0;
}

int tube_write(struct tube *t, const void *data, size_t n)
{
	return t->open && !t->dead ? conn_write(t->tubes->conn, t->stream, data, n) : -EAGAIN;
}

void tube_hold(struct tube *t, bool hold)
{
	t->held = hold;
	if (!hold && t->owed && !t->dead && t->tubes->conn)
		conn_grant(t->tubes->conn, t->stream, t->owed);
	t->owed = hold ? t->owed : 0;
}

void tube_fail(struct tube *t, int code, const char *reason)
{
	if (t->stream && !t->dead && t->tubes->conn)
		conn_end(t->tubes->conn, t->stream);
	die(t, code, reason);
}

void tube_close(struct tube *t)
{
	if (!t)
		return;
	tube_hold(t, false);
	t->left = true;
	if (t->stream && !t->dead && t->tubes->conn)
		conn_end(t->tubes->conn, t->stream);
	if (!t->stream)
		die(t, 0, "");
}
