/* SPDX-License-Identifier: Apache-2.0 */
/* Who is connected to a daemon: greeted, heard, answered, and gone. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "channel/conn.h"
#include "channel/tls.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/daemon.h"
#include "node/daemon-splice.h"

struct peer {
	struct peer *next;
	struct daemon *d;
	struct door *door;
	int fd;		     /* until it is the connection's */
	struct greet *greet; /* one of both */
	struct conn *conn;
	struct caller caller;
	struct asker who;
};

/* -------- who it is -------- */

/* A session of its own, until it names one. */
static int new_session(char *ret)
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -errno;
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(ret + 2 * i, 3, "%02x", random[i]);
	return 0;
}

unsigned peers_of(const struct door *door, uid_t uid)
{
	unsigned n = 0;

	for (const struct peer *p = door->d->peers; p; p = p->next)
		n += p->door == door && p->caller.has_uid && p->caller.uid == uid;
	return n;
}

static bool is_alike(const struct caller *a, const struct caller *b)
{
	if (a->has_uid != b->has_uid)
		return false;
	return a->has_uid ? a->uid == b->uid : !memcmp(a->address, b->address, sizeof(a->address));
}

unsigned peers_greeted(const struct daemon *d, const struct caller *caller)
{
	unsigned n = 0;

	for (const struct peer *p = d->peers; p; p = p->next)
		n += p->greet && is_alike(&p->caller, caller);
	return n;
}

static bool has_session(const struct peer *p, const struct asker *who)
{
	return p->conn && p->who.uid == who->uid && !strcmp(p->who.session, who->session);
}

bool peers_have(const struct daemon *d, const struct asker *who)
{
	for (const struct peer *p = d->peers; p; p = p->next)
		if (has_session(p, who))
			return true;
	return false;
}

void peers_tell(struct daemon *d, const struct asker *who, json_t *event)
{
	for (const struct peer *p = d->peers; p; p = p->next)
		if (has_session(p, who))
			conn_send(p->conn, event, NULL);
}

/* -------- its end -------- */

static void unlink_peer(struct peer *peer)
{
	struct peer **at = &peer->d->peers;

	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
}

static void peer_end(struct peer *peer)
{
	struct daemon *d = peer->d;
	bool was_there = peer->conn;

	unlink_peer(peer);
	replies_forget(d, &peer->who);
	if (peer->greet)
		door_greeted(peer->door);
	greet_cancel(peer->greet);
	if (peer->conn)
		streams_gone(d, peer->conn);
	conn_destroy(take_ptr(peer->conn));
	if (peer->fd >= 0)
		close(peer->fd);
	if (was_there)
		daemon_leave(d, &peer->who);
	free(peer);
}

/* -------- what it says -------- */

static void send_new(struct peer *peer, json_t *message)
{
	struct error err;
	int r = conn_send(peer->conn, message, &err);

	if (r == -EMSGSIZE)
		conn_fail(peer->conn, r, "an answer is too long for a message");
	json_decref(message);
}

static void answer(struct peer *peer, json_int_t id, int code, const char *reason, json_t *value)
{
	json_t *message = json_pack("{s:I, s:b}", "re", id, "done", 1);

	if (!code && value)
		json_object_set(message, "value", value);
	else if (value)
		json_object_update(message, value);
	if (code) {
		json_object_set_new(message, "errno", json_integer(-code));
		json_object_set_new(message, "error", json_string(reason));
	}
	send_new(peer, message);
}

static void on_reply(const struct reply *reply, int code, const char *reason, json_t *value)
{
	if (reply->asker)
		answer(reply->to, reply->id, code, reason, value);
}

/* What it is due on this connection it does not hear there any more: a join comes first. */
static void join(struct peer *peer, json_int_t id, const json_t *message)
{
	struct conn *conn = take_ptr(peer->conn);
	struct error err;
	int r;

	streams_gone(peer->d, conn);
	r = trees_join(peer->d, &peer->who, conn, message, &err);

	if (!r) {
		peer->conn = NULL;
		daemon_leave(peer->d, &peer->who);
		peer_end(peer);
		return;
	}
	peer->conn = conn;
	answer(peer, id, r, err.text, NULL);
}

static void request(struct peer *peer, json_int_t id, const json_t *message)
{
	struct reply model = {
		.asker = &peer->who, .conn = peer->conn, .id = id, .fn = on_reply, .to = peer};
	struct reply *reply;
	struct error err;
	int r = reply_create(peer->d, &model, &reply, &err);

	if (!r)
		daemon_request(peer->d, reply, message);
	else if (r == -EPROTO)
		conn_fail(peer->conn, r, err.text);
	else
		answer(peer, id, r, err.text, NULL);
}

/* Who is connected has no requests of ours: all that it may say else is that a stream is over. */
static void event(struct peer *peer, const json_t *message)
{
	const char *name = json_string_value(json_object_get(message, "event"));
	json_int_t stream = json_integer_value(json_object_get(message, "stream"));

	if (name && !strcmp(name, "reset") && stream > 0 && stream <= UINT32_MAX)
		splice_reset(peer->d, peer->conn, (uint32_t)stream);
}

static void on_message(void *arg, json_t *message)
{
	struct peer *peer = arg;
	const json_t *id = json_object_get(message, "id");
	const char *op = json_string_value(json_object_get(message, "op"));

	if (json_object_get(message, "event"))
		event(peer, message);
	else if (!json_is_integer(id) || json_integer_value(id) < 1)
		conn_fail(peer->conn, -EPROTO, "a request has no positive \"id\"");
	else if (op && !strcmp(op, "join"))
		join(peer, json_integer_value(id), message);
	else
		request(peer, json_integer_value(id), message);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct peer *peer = arg;

	splice_data(peer->d, peer->conn, stream, data, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct peer *peer = arg;

	splice_sent(peer->d, peer->conn, stream, n);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct peer *peer = arg;

	if (code && log_due(&peer->d->unheard))
		log_warn(peer->d->p.log, "peer", "%s: %s", peer->caller.name, reason);
	peer_end(peer);
}

static const struct conn_ops ops = {on_message, on_data, on_sent, on_closed};

/* -------- its beginning -------- */

/* Who proves to have the cluster's key is this daemon's user. */
static int know(struct peer *peer, const struct greet_peer *known, struct error *err)
{
	int r = 0;

	if (!peer->caller.has_uid) {
		peer->caller.uid = known->has_uid ? known->uid : geteuid();
		r = door_admits(peer->door, peer->caller.uid, err);
		peer->caller.has_uid = !r;
	}
	peer->who.uid = peer->caller.uid;
	return r;
}

static int begin(struct peer *peer, const struct greet_peer *known, struct error *err)
{
	struct conn_params params = {.loop = peer->d->p.loop,
				     .in = peer->fd,
				     .out = peer->fd,
				     .tls = known->tls,
				     .ops = &ops,
				     .arg = peer};
	int r = know(peer, known, err);

	if (!r)
		r = conn_create(&params, &peer->conn, err);
	if (r)
		tls_destroy(known->tls);
	else
		peer->fd = -1;
	return r;
}

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *known)
{
	struct peer *peer = arg;
	struct daemon *d = peer->d;
	struct error err;

	peer->greet = NULL;
	door_greeted(peer->door);
	if (code)
		error_set(&err, code, "%s", reason);
	else
		code = begin(peer, known, &err);
	if (!code)
		return;
	if (log_due(&d->unheard))
		log_warn(d->p.log, "peer", "%s: %s", peer->caller.name, err.text);
	peer_end(peer);
}

static int greet(struct peer *peer, struct error *err)
{
	struct greet_params params = peer->d->greeting;

	params.in = params.out = peer->fd;
	params.called = true;
	params.way = peer->door->remote ? GREET_REMOTE : GREET_LOCAL;
	return greet_start(&params, on_greeted, peer, &peer->greet, err);
}

int peer_add(struct door *door, int fd, const struct caller *caller, struct error *err)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	struct daemon *d = door->d;
	int r;

	if (!peer) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*peer = (struct peer){.next = d->peers, .d = d, .door = door, .fd = fd, .caller = *caller};
	d->peers = peer;
	r = new_session(peer->who.session);
	if (!r)
		r = greet(peer, err);
	if (r) {
		peer_end(peer);
		return r;
	}
	door->greetings++;
	return 0;
}

void peers_done(struct daemon *d)
{
	while (d->peers)
		peer_end(d->peers);
}
