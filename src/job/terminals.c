/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket of a cluster: who is connected, and what goes to whom. */

#include "job/terminals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/conn.h"
#include "channel/greet.h"
#include "job/output.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define TERMINALS_MAX 64u
#define PIECE 65536u
/* The kernel says when a program of this machine has gone; a stopped one may stay. */
#define PATIENCE_MS (24u * 3600 * 1000)

struct terminal {
	struct terminal *next;
	struct terminals *all; /* NULL: only an answer is due, that goes nowhere */
	unsigned due;	       /* answers */
	int fd;		       /* until it is the connection's */
	struct greet *greet;
	struct conn *conn;
	bool attached, holds;
	bool told;		   /* the last event */
	uint32_t input, stream[2]; /* 0: there is none */
	uint64_t at[2];		   /* position of the output that is sent next */
	size_t waiting;		   /* bytes of output that wait for the terminal's credit */
};

struct terminals {
	struct terminals_params p;
	int listener;
	struct loop_source *accepting;
	struct terminal *first;
	json_t *last; /* event; then it is over */
};

static void leave(struct terminal *t);

/* -------- output -------- */

/* False: it takes no more for now. */
static bool feed_one(struct terminal *t, unsigned i)
{
	uint8_t piece[PIECE];
	uint64_t before = t->at[i];
	ssize_t n = output_read(t->all->p.output[i], &t->at[i], piece, sizeof(piece));

	if (n <= 0)
		return true;
	/* That it has been sent may be told before conn_write() returns. */
	t->waiting += (size_t)n;
	if (conn_write(t->conn, t->stream[i], piece, (size_t)n)) {
		t->waiting -= (size_t)n;
		t->at[i] = before;
		return false;
	}
	return feed_one(t, i);
}

static void say_last(struct terminal *t)
{
	if (t->told)
		return;
	t->told = true;
	for (unsigned i = 0; i < 2; i++)
		if (t->stream[i])
			conn_end(t->conn, t->stream[i]);
	if (t->attached)
		terminal_tell(t, t->all->last);
	conn_finish(t->conn);
}

static void feed(struct terminal *t)
{
	bool all = true;

	if (!t->conn || t->told)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (t->stream[i])
			all &= feed_one(t, i);
	if (all && !t->waiting && t->all->last)
		say_last(t);
}

void terminals_feed(struct terminals *s)
{
	for (struct terminal *t = s->first; t; t = t->next) {
		for (unsigned i = 0; i < 2; i++)
			if (t->at[i] > s->p.output[i]->end)
				t->at[i] = s->p.output[i]->end;
		feed(t);
	}
}

uint64_t terminals_behind(const struct terminals *s)
{
	uint64_t most = 0;

	for (const struct terminal *t = s->first; t; t = t->next)
		for (unsigned i = 0; i < 2; i++)
			if (t->stream[i] && s->p.output[i]->end - t->at[i] > most)
				most = s->p.output[i]->end - t->at[i];
	return most;
}

/* -------- messages -------- */

static void send_to(struct terminal *t, const json_t *message)
{
	struct error err;

	/* Where it cannot be sent, the connection's end follows. */
	if (t->conn && !t->told)
		conn_send(t->conn, message, &err);
}

void terminal_tell(struct terminal *t, const json_t *event)
{
	struct error err;

	if (t->conn)
		conn_send(t->conn, event, &err);
}

void terminals_tell(struct terminals *s, json_t *event)
{
	for (struct terminal *t = s->first; t; t = t->next)
		if (t->attached)
			send_to(t, event);
	json_decref(event);
}

void terminal_answer(struct terminal *t, json_int_t id, int code, const char *text,
		     const json_t *value)
{
	json_t *message = json_pack("{s:I, s:b}", "re", id, "done", 1);

	t->due--;
	if (code) {
		json_object_set_new(message, "errno", json_integer(-code));
		json_object_set_new(message, "error", json_string(text));
	}
	if (value)
		json_object_set(message, "value", (json_t *)value);
	send_to(t, message);
	json_decref(message);
	if (!t->all && !t->due)
		free(t);
}

static int open_stream(struct terminal *t, const json_t *message, const char *key, uint32_t *ret,
		       struct error *err)
{
	json_int_t n = json_integer_value(json_object_get(message, key));
	int r = 0;

	if (n < 0 || n > UINT32_MAX)
		return error_set(err, -EINVAL, "\"%s\" is not the number of a stream", key);
	if (n)
		r = conn_open(t->conn, (uint32_t)n, err);
	if (!r)
		*ret = (uint32_t)n;
	return r;
}

/* Where output is to begin: a position, or (-1, or nothing said) what comes from now on. */
static uint64_t position(const json_t *message, const char *key, const struct output *o)
{
	const json_t *at = json_object_get(message, key);

	if (!json_is_integer(at) || json_integer_value(at) < 0 ||
	    (uint64_t)json_integer_value(at) > o->end)
		return o->end;
	return (uint64_t)json_integer_value(at);
}

static int attach(struct terminal *t, const json_t *message, struct error *err)
{
	int r;

	if (t->attached)
		return error_set(err, -EISCONN, "it is attached already");
	t->at[0] = position(message, "stdout-from", t->all->p.output[0]);
	t->at[1] = position(message, "stderr-from", t->all->p.output[1]);
	r = open_stream(t, message, "stdin", &t->input, err);
	if (!r)
		r = open_stream(t, message, "stdout", &t->stream[0], err);
	if (!r)
		r = open_stream(t, message, "stderr", &t->stream[1], err);
	t->attached = !r;
	t->holds = !r && json_is_true(json_object_get(message, "hold"));
	return r;
}

static void on_attach(struct terminal *t, json_int_t id, const json_t *message)
{
	struct error err = {""};
	int r = attach(t, message, &err);

	terminal_answer(t, id, r, err.text, NULL);
	if (r)
		return;
	t->all->p.ops->attached(t->all->p.arg, t);
	feed(t);
}

static void on_message(void *arg, json_t *message)
{
	struct terminal *t = arg;
	json_int_t id = json_integer_value(json_object_get(message, "id"));
	const char *op = json_string_value(json_object_get(message, "op"));

	if (id < 1 || !op) {
		conn_fail(t->conn, -EPROTO, "a request has no \"op\", or no positive \"id\"");
		return;
	}
	t->due++;
	if (!strcmp(op, "attach"))
		on_attach(t, id, message);
	else
		t->all->p.ops->request(t->all->p.arg, t, id, op, message);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct terminal *t = arg;

	if (stream == t->input)
		t->all->p.ops->input(t->all->p.arg, t, data, n);
	else if (n)
		conn_grant(t->conn, stream, n);
}

void terminals_used(struct terminals *s, const struct terminal *from, size_t n)
{
	for (struct terminal *t = s->first; t; t = t->next)
		if (t == from && t->conn && t->input)
			conn_grant(t->conn, t->input, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct terminal *t = arg;

	t->waiting -= n;
	feed(t);
	t->all->p.ops->drained(t->all->p.arg);
}

/* -------- coming and going -------- */

static void unlink_terminal(struct terminal *t)
{
	struct terminal **at = &t->all->first;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
}

static void leave(struct terminal *t)
{
	struct terminals *s = t->all;
	bool lost = t->holds && !s->last;

	unlink_terminal(t);
	greet_cancel(t->greet);
	conn_destroy(take_ptr(t->conn));
	if (t->fd >= 0)
		close(t->fd);
	t->all = NULL;
	t->fd = -1;
	if (!t->due)
		free(t);
	if (lost)
		s->p.ops->lost(s->p.arg);
	s->p.ops->drained(s->p.arg);
}

static void on_closed(void *arg, int code, const char *reason)
{
	leave(arg);
}

static const struct conn_ops conn_ops = {on_message, on_data, on_sent, on_closed};

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	struct terminal *t = arg;
	struct conn_params params = {.loop = t->all->p.loop,
				     .in = t->fd,
				     .out = t->fd,
				     .dead_ms = PATIENCE_MS,
				     .ops = &conn_ops,
				     .arg = t};
	struct error err;

	t->greet = NULL;
	if (!code)
		code = conn_create(&params, &t->conn, &err);
	if (code) {
		leave(t);
		return;
	}
	t->fd = -1;
	if (t->all->last)
		say_last(t);
}

/* Takes the descriptor. */
static void welcome(struct terminals *s, int fd)
{
	struct terminal *t = calloc(1, sizeof(*t));
	struct greet_params params = {.loop = s->p.loop,
				      .in = fd,
				      .out = fd,
				      .called = true,
				      .way = GREET_LOCAL,
				      .self = s->p.name,
				      .daemon = geteuid()};
	struct error err;

	if (!t) {
		close(fd);
		return;
	}
	*t = (struct terminal){.next = s->first, .all = s, .fd = fd};
	s->first = t;
	if (greet_start(&params, on_greeted, t, &t->greet, &err))
		leave(t);
}

static unsigned count(const struct terminals *s)
{
	unsigned n = 0;

	for (const struct terminal *t = s->first; t; t = t->next)
		n++;
	return n;
}

static void on_accept(void *arg, uint32_t events)
{
	struct terminals *s = arg;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	uid_t uid;

	if (fd < 0)
		return;
	if (io_peer_uid(fd, &uid, NULL) || (uid != geteuid() && uid != 0) ||
	    count(s) >= TERMINALS_MAX)
		close(fd);
	else
		welcome(s, fd);
}

/* -------- holding -------- */

void terminals_let_go(struct terminals *s)
{
	for (struct terminal *t = s->first; t; t = t->next)
		t->holds = false;
}

bool terminals_hold(const struct terminals *s)
{
	for (const struct terminal *t = s->first; t; t = t->next)
		if (t->holds)
			return true;
	return false;
}

/* -------- life -------- */

void terminals_finish(struct terminals *s, json_t *event)
{
	struct terminal *next;

	if (s->last) {
		json_decref(event);
		return;
	}
	s->last = event;
	for (struct terminal *t = s->first; t; t = next) {
		next = t->next;
		if (t->conn)
			feed(t);
		else
			leave(t);
	}
}

bool terminals_are_done(const struct terminals *s)
{
	return !s->first;
}

void terminals_close(struct terminals *s)
{
	loop_remove(&s->accepting);
	if (s->listener < 0)
		return;
	close(s->listener);
	unlink(s->p.path);
	s->listener = -1;
}

static int listen_at(struct terminals *s, struct error *err)
{
	int r;

	s->listener = io_unix_listen(s->p.path, err);
	if (s->listener < 0)
		return s->listener;
	if (fcntl(s->listener, F_SETFL, O_NONBLOCK))
		return error_errno(err, -errno, "%s", s->p.path);
	r = loop_add_fd(s->p.loop, s->listener, EPOLLIN, on_accept, s, &s->accepting);
	return r ? error_errno(err, r, "cannot watch %s", s->p.path) : 0;
}

int terminals_create(const struct terminals_params *params, struct terminals **ret,
		     struct error *err)
{
	struct terminals *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	*s = (struct terminals){.p = *params, .listener = -1};
	r = listen_at(s, err);
	if (r)
		terminals_destroy(s);
	else
		*ret = s;
	return r;
}

void terminals_destroy(struct terminals *s)
{
	if (!s)
		return;
	terminals_close(s);
	while (s->first) {
		s->first->holds = false;
		leave(s->first);
	}
	json_decref(s->last);
	free(s);
}
