/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `connect`: a stream to something of a VM, here by the cluster's part, or on another node by a
 * connection of its own to the daemon there, which asks its part.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/daemon.h"
#include "node/daemon-splice.h"
#include "node/dial.h"
#include "node/nodename.h"

#define OF_ONE_USER 1024u
#define ID 1 /* of the one request on a connection to another node */
#define STREAM 1

struct link {
	struct link *next;
	struct daemon *d;
	struct reply *reply; /* NULL: it is answered */
	json_t *request;
	uid_t uid;
	struct splice *splice; /* NULL: it is over */
	struct dial *dial;     /* to the other node, or */
	struct conn *conn;     /* with it */
	struct conn *part;     /* here: it will answer */
	uint32_t stream;       /* of part */
};

/* -------- its end -------- */

static void settle(struct link *l)
{
	struct link **at = &l->d->links;

	if (l->splice || l->conn || l->part)
		return;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	json_decref(l->request);
	free(l);
}

static void answer(struct link *l, int code, const char *reason)
{
	struct error err;

	error_set(&err, code, "%s", reason);
	if (l->reply)
		reply_send(take_ptr(l->reply), code, NULL, &err);
}

static void fail(struct link *l, int code, const char *reason)
{
	answer(l, code, reason);
	if (l->splice)
		splice_refuse(take_ptr(l->splice));
	if (l->conn)
		conn_finish(l->conn);
	settle(l);
}

static void on_over(void *arg)
{
	struct link *l = arg;

	l->splice = NULL;
	answer(l, -EPIPE, "the connection was ended");
	dial_cancel(take_ptr(l->dial));
	if (l->conn)
		conn_finish(l->conn);
	settle(l);
}

/* The far end is there: bytes flow behind the answer. */
static void done(struct link *l, struct conn *conn, uint32_t stream)
{
	answer(l, 0, "");
	splice_attach(l->splice, conn, stream);
}

/* -------- on another node -------- */

static void hear_answer(struct link *l, const json_t *message)
{
	const char *why = json_string_value(json_object_get(message, "error"));
	json_int_t code = json_integer_value(json_object_get(message, "errno"));

	if (!l->splice || !l->reply)
		return;
	if (code)
		fail(l, code > 0 && code < 4096 ? -(int)code : -EPROTO, why ? why : "refused");
	else
		done(l, l->conn, STREAM);
}

static void on_message(void *arg, json_t *message)
{
	struct link *l = arg;
	const char *event = json_string_value(json_object_get(message, "event"));

	if (json_integer_value(json_object_get(message, "re")) == ID)
		hear_answer(l, message);
	else if (event && !strcmp(event, "reset"))
		splice_reset(l->d, l->conn, STREAM);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct link *l = arg;

	splice_data(l->d, l->conn, stream, data, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct link *l = arg;

	splice_sent(l->d, l->conn, stream, n);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct link *l = arg;
	struct error err;

	error_set(&err, code ? code : -EPIPE, "the other node's wispd: %s", reason);
	streams_gone(l->d, l->conn);
	conn_destroy(take_ptr(l->conn));
	fail(l, code ? code : -EPIPE, err.text);
}

static const struct conn_ops ops = {on_message, on_data, on_sent, on_closed};

static int ask_far(struct link *l, struct error *err)
{
	json_t *message = json_copy(l->request);
	int r = message ? conn_open(l->conn, STREAM, err)
			: error_set(err, -ENOMEM, "out of memory");

	if (!r) {
		json_object_del(message, "node");
		json_object_set_new(message, "id", json_integer(ID));
		json_object_set_new(message, "stream", json_integer(STREAM));
		json_object_set_new(message, "as", json_integer(l->uid));
		r = conn_send(l->conn, message, err);
	}
	json_decref(message);
	return r;
}

static void on_dialled(void *arg, int code, const char *reason, struct conn *conn)
{
	struct link *l = arg;
	struct error err;
	int r;

	l->dial = NULL;
	if (code) {
		fail(l, code, reason);
		return;
	}
	l->conn = conn;
	conn_set_ops(conn, &ops, l);
	r = ask_far(l, &err);
	if (r)
		fail(l, r, err.text);
}

/* -------- on this node -------- */

static void on_part(void *arg, int code, const char *reason, json_t *value)
{
	struct link *l = arg;
	struct conn *part = take_ptr(l->part);

	if (!l->splice && !code)
		stream_reset(part, l->stream);
	if (l->splice && !code)
		done(l, part, l->stream);
	else
		fail(l, code ? code : -EPIPE, reason);
}

static int connect_here(struct link *l, struct error *err)
{
	return l->d->part_connect(l->d, &l->reply->who, l->request, on_part, l, &l->part,
				  &l->stream, err);
}

/* -------- its beginning -------- */

/* NULL: it is this one. */
static int other_node(const struct daemon *d, const json_t *request, const char **ret,
		      struct error *err)
{
	const char *text = json_string_value(json_object_get(request, "node"));
	struct nodename node;
	int r = text ? nodename_parse(text, &node, err) : 0;

	if (!r)
		*ret = text && strcmp(node.name, d->p.name) ? text : NULL;
	return r;
}

static int check_number(const struct daemon *d, uid_t uid, struct error *err)
{
	unsigned n = 0;

	for (const struct link *l = d->links; l; l = l->next)
		n += l->uid == uid;
	if (n < OF_ONE_USER)
		return 0;
	return error_set(err, -EUSERS, "user %u is connected to %u VMs by this wispd", uid, n);
}

static int link_new(struct daemon *d, struct reply *reply, const json_t *request, struct link **ret,
		    struct error *err)
{
	json_int_t stream = json_integer_value(json_object_get(request, "stream"));
	struct link *l;
	int r;

	if (!reply->conn)
		return error_set(err, -EINVAL, "connect needs a connection of its own, not a tree");
	if (stream < 1 || stream > UINT32_MAX)
		return error_set(err, -EINVAL, "\"stream\" is not the number of a stream");
	r = check_number(d, reply->who.uid, err);
	if (r)
		return r;
	l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, "out of memory");
	*l = (struct link){.next = d->links, .d = d, .reply = reply, .uid = reply->who.uid};
	r = splice_open(d, reply->conn, (uint32_t)stream, on_over, l, &l->splice, err);
	if (r) {
		free(l);
		return r;
	}
	l->request = json_incref((json_t *)request);
	d->links = l;
	*ret = l;
	return 0;
}

void daemon_connect(struct daemon *d, struct reply *reply, const json_t *request)
{
	const char *node = NULL;
	struct link *l = NULL;
	struct error err;
	int r = other_node(d, request, &node, &err);

	if (!r)
		r = link_new(d, reply, request, &l, &err);
	if (r) {
		reply_send(reply, r, NULL, &err);
		return;
	}
	r = node ? daemon_dial(d, node, on_dialled, l, &l->dial, &err) : connect_here(l, &err);
	if (r)
		fail(l, r, err.text);
}

void connects_done(struct daemon *d)
{
	for (struct link *l = d->links, *next; l; l = next) {
		next = l->next;
		conn_destroy(take_ptr(l->conn));
		dial_cancel(take_ptr(l->dial));
		fail(l, -ESHUTDOWN, "wispd ends");
	}
}
