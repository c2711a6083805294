/* SPDX-License-Identifier: Apache-2.0 */
/* Who is connected to a daemon: greeted, heard, answered, and gone. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel/conn.h"
#include "channel/greet.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/daemon.h"

struct peer {
	struct peer *next;
	struct daemon *d;
	int fd;		     /* until it is the connection's */
	struct greet *greet; /* one of both */
	struct conn *conn;
	struct asker who;
};

/* -------- who it is -------- */

static bool is_operator(const struct daemon *d, uid_t uid)
{
	const struct passwd *user = uid ? getpwuid(uid) : NULL;
	gid_t gids[1024];
	int n = ARRAY_SIZE(gids);

	if (uid == 0 || uid == geteuid())
		return true;
	if (!user || d->p.operators == (gid_t)-1)
		return false;
	if (getgrouplist(user->pw_name, user->pw_gid, gids, &n) < 0)
		n = ARRAY_SIZE(gids);
	for (int i = 0; i < n; i++)
		if (gids[i] == d->p.operators)
			return true;
	return false;
}

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

static unsigned count(const struct daemon *d, uid_t uid, bool greeting)
{
	unsigned n = 0;

	for (const struct peer *p = d->peers; p; p = p->next)
		n += p->who.uid == uid && (!greeting || p->greet);
	return n;
}

bool peers_have(const struct daemon *d, const struct asker *who)
{
	for (const struct peer *p = d->peers; p; p = p->next)
		if (p->conn && p->who.uid == who->uid && !strcmp(p->who.session, who->session))
			return true;
	return false;
}

void daemon_event(struct daemon *d, uid_t uid, const char *session, json_t *event)
{
	for (const struct peer *p = d->peers; p; p = p->next)
		if (p->conn && p->who.uid == uid && !strcmp(p->who.session, session))
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

static void accept_more(struct daemon *d)
{
	loop_modify_fd(d->accepting, d->greetings < DAEMON_GREETINGS ? EPOLLIN : 0);
}

static void peer_end(struct peer *peer)
{
	struct daemon *d = peer->d;
	bool was_there = peer->conn;

	unlink_peer(peer);
	replies_forget(d, &peer->who);
	d->greetings -= peer->greet != NULL;
	greet_cancel(peer->greet);
	conn_destroy(peer->conn);
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

static void on_message(void *arg, json_t *message)
{
	struct peer *peer = arg;
	const json_t *id = json_object_get(message, "id");
	struct reply model = {.asker = &peer->who, .conn = peer->conn, .fn = on_reply, .to = peer};
	struct reply *reply;
	struct error err;
	int r;

	if (!json_is_integer(id) || json_integer_value(id) < 1) {
		conn_fail(peer->conn, -EPROTO, "a request has no positive \"id\"");
		return;
	}
	model.id = json_integer_value(id);
	r = reply_create(peer->d, &model, &reply, &err);
	if (!r)
		daemon_request(peer->d, reply, message);
	else if (r == -EPROTO)
		conn_fail(peer->conn, r, err.text);
	else
		answer(peer, model.id, r, err.text, NULL);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct peer *peer = arg;

	if (code && log_due(&peer->d->unheard))
		log_warn(peer->d->p.log, "peer", "user %u: %s", peer->who.uid, reason);
	peer_end(peer);
}

static const struct conn_ops ops = {on_message, on_data, NULL, on_closed};

/* -------- its beginning -------- */

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *known)
{
	struct peer *peer = arg;
	struct daemon *d = peer->d;
	struct conn_params params = {
		.loop = d->p.loop, .in = peer->fd, .out = peer->fd, .ops = &ops, .arg = peer};
	struct error err = {""};

	peer->greet = NULL;
	d->greetings--;
	accept_more(d);
	if (!code) {
		code = conn_create(&params, &peer->conn, &err);
		reason = err.text;
	}
	if (code) {
		if (log_due(&d->unheard))
			log_warn(d->p.log, "peer", "user %u: %s", peer->who.uid, reason);
		peer_end(peer);
		return;
	}
	peer->fd = -1;
	peer->who.operator= is_operator(d, peer->who.uid);
}

static int greet(struct peer *peer, struct error *err)
{
	struct greet_params params = {.loop = peer->d->p.loop,
				      .in = peer->fd,
				      .out = peer->fd,
				      .called = true,
				      .way = GREET_LOCAL,
				      .self = peer->d->p.name,
				      .daemon = geteuid()};

	return greet_start(&params, on_greeted, peer, &peer->greet, err);
}

/* Takes the descriptor. */
static int peer_add(struct daemon *d, int fd, uid_t uid, struct error *err)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	int r;

	if (!peer) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*peer = (struct peer){.next = d->peers, .d = d, .fd = fd, .who.uid = uid};
	d->peers = peer;
	r = new_session(peer->who.session);
	if (!r)
		r = greet(peer, err);
	if (r) {
		peer_end(peer);
		return r;
	}
	d->greetings++;
	return 0;
}

static int admit_peer(const struct daemon *d, uid_t uid, struct error *err)
{
	if (!d->p.everybody && uid != geteuid() && uid != 0)
		return error_set(err, -EPERM, "user %u: this wispd is user %u's", uid, geteuid());
	if (count(d, uid, false) >= DAEMON_OF_ONE_USER ||
	    count(d, uid, true) >= DAEMON_GREETINGS / 4)
		return error_set(err, -EUSERS, "user %u has too many connections", uid);
	return 0;
}

static void on_accept(void *arg, uint32_t events)
{
	struct daemon *d = arg;
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct error err;
	uid_t uid;
	int r;

	if (fd < 0)
		return;
	r = io_peer_uid(fd, &uid, NULL);
	if (!r)
		r = admit_peer(d, uid, &err);
	else
		error_errno(&err, r, "who connects is not known");
	if (r)
		close(fd);
	else
		r = peer_add(d, fd, uid, &err);
	if (r && log_due(&d->unheard))
		log_warn(d->p.log, "peer", "%s", err.text);
	accept_more(d);
}

int peers_listen(struct daemon *d, struct error *err)
{
	int r;

	d->listener = io_unix_listen(d->p.socket, err);
	if (d->listener < 0)
		return d->listener;
	if (d->p.everybody && chmod(d->p.socket, 0666))
		return error_errno(err, -errno, "cannot open %s to all users", d->p.socket);
	if (fcntl(d->listener, F_SETFL, O_NONBLOCK))
		return error_errno(err, -errno, "%s", d->p.socket);
	r = loop_add_fd(d->p.loop, d->listener, EPOLLIN, on_accept, d, &d->accepting);
	return r ? error_errno(err, r, "cannot watch %s", d->p.socket) : 0;
}

void peers_done(struct daemon *d)
{
	loop_remove(&d->accepting);
	while (d->peers)
		peer_end(d->peers);
	if (d->listener >= 0) {
		close(d->listener);
		unlink(d->p.socket);
	}
}
