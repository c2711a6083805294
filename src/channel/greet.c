/* SPDX-License-Identifier: Apache-2.0 */
/* A greeting: a list of steps for each role, each of which may have to wait. */

#include "channel/greet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "channel/credential.h"
#include "channel/frame.h"
#include "channel/key.h"
#include "channel/tls.h"
#include "channel/transport.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define VERSION 1
#define PURPOSE "wisp node 1\n" /* what a credential is for, ahead of the node's name */
#define NONCE KEY_SIZE
#define KEY_MAX 4096u
#define IDENTITY "wisp-node-1"

typedef int step_fn(struct greet *g, struct error *err);

struct greet {
	struct transport transport; /* of the caller's descriptors */
	bool called;
	enum greet_way way;
	char self[GREET_NODE], node[GREET_NODE];
	struct credentials *credentials;
	uid_t daemon;
	uint8_t cluster[KEY_MAX];
	size_t ncluster;
	greet_fn *fn;
	void *arg;
	struct loop *loop;
	struct loop_source *on_in, *on_out, *on_job, *timer;
	step_fn *const *step;
	short wait;
	uint8_t *out; /* a frame that is written */
	size_t nout, sent;
	uint8_t in[4 + GREET_FRAME_MAX];
	size_t have;
	json_t *message; /* that has come */
	struct credential_job *job;
	uint8_t nonces[2 * NONCE]; /* the caller's first */
	uint8_t key[KEY_SIZE];	   /* of this connection */
	struct greet_peer peer;
	int refused; /* what the peer is told before we go */
	struct error why;
};

/* -------- frames, and not a byte more -------- */

static int put(struct greet *g, json_t *message, struct error *err)
{
	int rc = message ? frame_encode(message, GREET_FRAME_MAX, &g->out, &g->nout, err)
			 : error_set(err, -ENOMEM, "out of memory");

	json_decref(message);
	g->sent = 0;
	return rc;
}

static int flush(struct greet *g, struct error *err)
{
	while (g->sent < g->nout) {
		ssize_t n = transport_write(&g->transport, g->out + g->sent, g->nout - g->sent,
					    &g->wait, err);

		if (n < 0)
			return (int)n;
		g->sent += (size_t)n;
	}
	free(take_ptr(g->out));
	return 0;
}

static int frame_size(const struct greet *g, size_t *ret, struct error *err)
{
	uint32_t length;

	*ret = sizeof(length);
	if (g->have < sizeof(length))
		return 0;
	memcpy(&length, g->in, sizeof(length));
	length = ntohl(length);
	if (!length || length > GREET_FRAME_MAX)
		return error_set(err, -EBADMSG, "it does not speak Wisp's node protocol");
	*ret += length;
	return 0;
}

/* The bytes behind the frame are TLS, or the connection's. */
static int receive_bytes(struct greet *g, struct error *err)
{
	size_t size;
	int rc = frame_size(g, &size, err);

	while (rc == 0 && g->have < size) {
		ssize_t n = transport_read(&g->transport, g->in + g->have, size - g->have, &g->wait,
					   err);

		if (n < 0)
			return (int)n;
		if (!n)
			return error_set(err, -EPIPE, "it hung up while it was greeted");
		g->have += (size_t)n;
		rc = frame_size(g, &size, err);
	}
	return rc;
}

static int parse(struct greet *g, struct error *err)
{
	struct frame_reader r = {.max = GREET_FRAME_MAX};
	struct frame frame;
	size_t left = g->have, n;
	int rc;

	while (left) {
		uint8_t *p = frame_room(&r, &n);

		if (!p)
			break;
		n = n < left ? n : left;
		memcpy(p, g->in + g->have - left, n);
		frame_added(&r, n);
		left -= n;
	}
	rc = left ? error_set(err, -ENOMEM, "out of memory") : frame_take(&r, &frame, err);
	if (rc > 0 && frame.type != FRAME_MESSAGE)
		rc = error_set(err, -EBADMSG, "it does not greet");
	if (rc > 0) {
		json_decref(g->message);
		g->message = frame.message;
	}
	frame_reader_done(&r);
	return rc > 0 ? 0 : rc;
}

static const char *text_of(const struct greet *g, const char *key)
{
	const char *text = json_string_value(json_object_get(g->message, key));

	return text ? text : "";
}

/* A refusal says why, before the version is looked at: another version may say no as well. */
static int receive(struct greet *g, struct error *err)
{
	json_int_t code, version;
	int rc = receive_bytes(g, err);

	if (rc == 0)
		rc = parse(g, err);
	if (rc < 0)
		return rc;
	g->have = 0;
	code = json_integer_value(json_object_get(g->message, "errno"));
	version = json_integer_value(json_object_get(g->message, "wisp"));
	/* What it says must not look as if we had to wait. */
	if (code > 0 && code < 4096)
		return error_set(err, code == EAGAIN ? -ECONNREFUSED : -(int)code, "it refuses: %s",
				 text_of(g, "error"));
	if (version != VERSION)
		return error_set(err, -EPROTONOSUPPORT,
				 "it speaks version %lld of the node protocol, not %d",
				 (long long)version, VERSION);
	return 0;
}

/* -------- both, in the clear or by TLS -------- */

static int put_hello(struct greet *g, struct error *err)
{
	return put(g, json_pack("{s:i, s:s}", "wisp", VERSION, "node", g->self), err);
}

static int check_node(struct greet *g, bool expected, struct error *err)
{
	const char *node = text_of(g, "node");
	size_t n = strlen(node);

	if (!n || n >= GREET_NODE)
		return error_set(err, -EBADMSG, "it does not say which node it is");
	if (expected && g->node[0] && strcmp(node, g->node))
		return error_set(err, -EACCES, "it is node %.80s, not %.80s", node, g->node);
	memcpy(g->peer.node, node, n + 1);
	return 0;
}

static int hear_hello(struct greet *g, struct error *err)
{
	int rc = check_node(g, !g->called, err);

	if (rc < 0 || g->way != GREET_LOCAL)
		return rc;
	rc = io_peer_uid(g->transport.in, &g->peer.uid, NULL);
	if (rc < 0)
		return error_errno(err, rc, "cannot know who it is");
	g->peer.has_uid = true;
	return 0;
}

static int shake_hands(struct greet *g, struct error *err)
{
	int rc = 0;
	ssize_t done;

	if (!g->transport.tls)
		rc = tls_create(g->transport.in, g->called, IDENTITY, g->key, &g->transport.tls,
				err);
	if (rc < 0)
		return rc;
	done = tls_handshake(g->transport.tls, &g->wait, err);
	if (done > 0)
		return 0;
	/* A side that does not like the other's key says so first. */
	if (done == 0 || done == -EPIPE || done == -ECONNRESET)
		return error_set(err, -ECONNRESET,
				 "it hung up before it had shown that it has the key");
	if (done == -EPROTO)
		return error_prefix(err, -EACCES, "the two sides have not the same key");
	return (int)done;
}

/* -------- keys -------- */

static int make_key(struct greet *g, const char *node, struct error *err)
{
	uint8_t secret[KEY_SIZE];
	char info[sizeof(PURPOSE) + GREET_NODE];
	int n = snprintf(info, sizeof(info), "%s%s", PURPOSE, node);
	int rc = key_extract(g->nonces, sizeof(g->nonces), g->cluster, g->ncluster, secret, err);

	if (rc == 0)
		rc = key_expand(secret, info, (size_t)n, g->key, err);
	OPENSSL_cleanse(secret, sizeof(secret));
	return rc;
}

static int random_bytes(uint8_t *ret, size_t n, struct error *err)
{
	return getrandom(ret, n, 0) == (ssize_t)n ? 0
						  : error_errno(err, -errno, "no random numbers");
}

static json_t *hex(const uint8_t nonce[NONCE])
{
	char text[2 * NONCE + 1];

	for (unsigned i = 0; i < NONCE; i++)
		sprintf(text + 2 * i, "%02x", nonce[i]);
	return json_string(text);
}

static int get_nonce(const struct greet *g, uint8_t ret[NONCE], struct error *err)
{
	const char *text = text_of(g, "nonce");
	size_t n = 0;

	if (strlen(text) != 2 * NONCE || strspn(text, "0123456789abcdef") != 2 * NONCE)
		return error_set(err, -EBADMSG, "a nonce that is none");
	OPENSSL_hexstr2buf_ex(ret, NONCE, &n, text, '\0');
	return n == NONCE ? 0 : error_set(err, -EBADMSG, "a nonce that is none");
}

/* Of a credential for the node that is called. */
static size_t payload_size(const char *node)
{
	return strlen(PURPOSE) + strlen(node) + 1 + KEY_SIZE;
}

static int job_result(struct greet *g, const struct credential **ret, struct error *err)
{
	int rc = credential_result(g->job, ret, err);

	if (rc == -EAGAIN)
		g->wait = 0;
	return rc;
}

static void on_event(void *arg, uint32_t events);

static int watch_job(struct greet *g, struct error *err)
{
	int rc = loop_add_fd(g->loop, credential_fd(g->job), EPOLLIN, on_event, g, &g->on_job);

	return rc < 0 ? error_errno(err, rc, "MUNGE on the event loop") : 0;
}

static void drop_job(struct greet *g)
{
	loop_remove(&g->on_job);
	credential_drop(&g->job);
}

/* -------- the caller -------- */

static int begin_munge(struct greet *g, struct error *err)
{
	uint8_t payload[CREDENTIAL_PAYLOAD];
	int n = snprintf((char *)payload, sizeof(payload), "%s%s\n", PURPOSE, g->node);
	int rc = random_bytes(g->key, KEY_SIZE, err);

	memcpy(payload + n, g->key, KEY_SIZE);
	if (rc == 0)
		rc = credential_encode(g->credentials, payload, payload_size(g->node), g->daemon,
				       &g->job, err);
	OPENSSL_cleanse(payload, sizeof(payload));
	return rc < 0 ? rc : watch_job(g, err);
}

static int put_credential(struct greet *g, struct error *err)
{
	const struct credential *c;
	int rc = job_result(g, &c, err);

	if (rc < 0)
		return rc;
	rc = put(g,
		 json_pack("{s:i, s:s, s:s}", "wisp", VERSION, "auth", "munge", "credential",
			   c->text),
		 err);
	drop_job(g);
	return rc;
}

static int put_nonce(struct greet *g, struct error *err)
{
	int rc = random_bytes(g->nonces, NONCE, err);

	return rc < 0 ? rc
		      : put(g,
			    json_pack("{s:i, s:s, s:o}", "wisp", VERSION, "auth", "key", "nonce",
				      hex(g->nonces)),
			    err);
}

static int hear_reply(struct greet *g, struct error *err)
{
	int rc = check_node(g, true, err);

	if (rc == 0 && g->way == GREET_MUNGE) {
		g->peer.has_uid = true;
		g->peer.uid = g->daemon;
	} else if (rc == 0) {
		rc = get_nonce(g, g->nonces + NONCE, err);
		if (rc == 0)
			rc = make_key(g, g->node, err);
	}
	return rc;
}

/* -------- who is called -------- */

static int refuse(struct greet *g, int code, const char *reason)
{
	g->refused = code;
	error_set(&g->why, code, "%s", reason);
	return 0;
}

static int hear_munge(struct greet *g)
{
	struct error err = {{0}};
	int rc;

	if (!g->credentials)
		return refuse(g, -ENOTSUP, "this daemon does not take MUNGE");
	rc = credential_decode(g->credentials, text_of(g, "credential"), &g->job, &err);
	if (rc == 0)
		rc = watch_job(g, &err);
	return rc < 0 ? refuse(g, rc, err.text) : 0;
}

static int hear_key(struct greet *g, struct error *err)
{
	int rc;

	if (!g->ncluster)
		return refuse(g, -ENOTSUP, "this daemon has no key of a cluster");
	rc = get_nonce(g, g->nonces, err);
	if (rc == 0)
		rc = random_bytes(g->nonces + NONCE, NONCE, err);
	return rc < 0 ? rc : make_key(g, g->self, err);
}

static int hear_call(struct greet *g, struct error *err)
{
	const char *auth = text_of(g, "auth");

	g->way = strcmp(auth, "munge") ? GREET_KEY : GREET_MUNGE;
	if (g->way == GREET_MUNGE)
		return hear_munge(g);
	if (!strcmp(auth, "key"))
		return hear_key(g, err);
	return refuse(g, -ENOTSUP, "this daemon knows its callers by \"munge\" or \"key\"");
}

static int take_credential(struct greet *g, const struct credential *c)
{
	size_t n = strlen(PURPOSE), node = strlen(g->self);

	if (c->n < n || memcmp(c->payload, PURPOSE, n))
		return refuse(g, -EACCES, "a credential that is not for Wisp's nodes");
	if (c->n != payload_size(g->self) || memcmp(c->payload + n, g->self, node) ||
	    c->payload[n + node] != '\n')
		return refuse(g, -EACCES, "a credential for another node");
	memcpy(g->key, c->payload + n + node + 1, KEY_SIZE);
	g->peer.has_uid = true;
	g->peer.uid = c->uid;
	return 0;
}

static int hear_credential(struct greet *g, struct error *err)
{
	const struct credential *c;
	struct error why = {{0}};
	int rc = g->job ? job_result(g, &c, &why) : 0;

	if (rc == -EAGAIN || !g->job)
		return rc;
	if (rc < 0)
		refuse(g, rc, why.text);
	else
		take_credential(g, c);
	drop_job(g);
	return 0;
}

static int put_reply(struct greet *g, struct error *err)
{
	json_t *m;

	if (g->refused)
		return put(g,
			   json_pack("{s:i, s:i, s:s}", "wisp", VERSION, "errno", -g->refused,
				     "error", g->why.text),
			   err);
	m = json_pack("{s:i, s:s}", "wisp", VERSION, "node", g->self);
	if (g->way == GREET_KEY)
		json_object_set_new(m, "nonce", hex(g->nonces + NONCE));
	return put(g, m, err);
}

static int check_refused(struct greet *g, struct error *err)
{
	return g->refused ? error_set(err, g->refused, "%s", g->why.text) : 0;
}

/* -------- the order of things -------- */

#define HELLO put_hello, flush, receive, hear_hello, NULL

static step_fn *const local_steps[] = {HELLO};
static step_fn *const munge_steps[] = {begin_munge, put_credential, flush, receive,
				       hear_reply,  shake_hands,    HELLO};
static step_fn *const key_steps[] = {put_nonce, flush, receive, hear_reply, shake_hands, HELLO};
static step_fn *const called_steps[] = {receive, hear_call,	hear_credential, put_reply,
					flush,	 check_refused, shake_hands,	 HELLO};

static void greet_free(struct greet *g)
{
	loop_remove(&g->on_in);
	loop_remove(&g->on_out);
	loop_remove(&g->timer);
	drop_job(g);
	tls_destroy(g->transport.tls);
	free(g->out);
	json_decref(g->message);
	OPENSSL_cleanse(g, sizeof(*g));
	free(g);
}

void greet_cancel(struct greet *g)
{
	if (g)
		greet_free(g);
}

static void finish(struct greet *g, int code, const char *reason)
{
	struct greet_peer peer = g->peer;
	greet_fn *fn = g->fn;
	void *arg = g->arg;

	peer.how = g->way;
	peer.tls = code ? NULL : take_ptr(g->transport.tls);
	greet_free(g);
	fn(arg, code, reason, code ? NULL : &peer);
}

/* A connection that nothing is waited for from tells of its end only. */
static void wait_for(struct greet *g)
{
	bool in = g->wait == POLLIN, out = g->wait == POLLOUT;

	if (g->on_out) {
		loop_modify_fd(g->on_in, in ? EPOLLIN : 0);
		loop_modify_fd(g->on_out, out ? EPOLLOUT : 0);
	} else {
		loop_modify_fd(g->on_in, (in ? EPOLLIN : 0) | (out ? EPOLLOUT : 0));
	}
}

static void on_event(void *arg, uint32_t events)
{
	struct greet *g = arg;
	struct error err = {{0}};
	int rc = 0;

	while (rc == 0 && *g->step) {
		rc = (*g->step)(g, &err);
		g->step += rc == 0;
	}
	if (rc == -EAGAIN && !g->wait && events & (EPOLLHUP | EPOLLERR))
		rc = error_set(&err, -EPIPE, "it hung up while it was greeted");
	if (rc == -EAGAIN)
		wait_for(g);
	else
		finish(g, rc, err.text);
}

static void on_timer(void *arg)
{
	finish(arg, -ETIMEDOUT, "it was not greeted in time");
}

static int check_params(const struct greet_params *p, struct error *err)
{
	bool secure = p->way != GREET_LOCAL && p->way != GREET_LAUNCHED;

	if (!p->self || !*p->self || strlen(p->self) >= GREET_NODE ||
	    (p->node && strlen(p->node) >= GREET_NODE))
		return error_set(err, -EINVAL, "the name of a node has 1 to %u characters",
				 GREET_NODE - 1);
	if (secure && !p->called && (!p->node || !*p->node))
		return error_set(err, -EINVAL, "a call to a node without a name");
	if (p->way == GREET_MUNGE && !p->credentials)
		return error_set(err, -EINVAL, "a call by MUNGE without MUNGE");
	if ((p->way == GREET_KEY && p->nkey < KEY_SIZE) || (p->nkey && p->nkey < KEY_SIZE))
		return error_set(err, -EINVAL, "a cluster's key has at least %d bytes", KEY_SIZE);
	if (p->nkey > KEY_MAX)
		return error_set(err, -EINVAL, "a cluster's key has at most %u bytes", KEY_MAX);
	return 0;
}

static step_fn *const *steps_of(const struct greet_params *p)
{
	if (p->way == GREET_LOCAL || p->way == GREET_LAUNCHED)
		return local_steps;
	if (p->called)
		return called_steps;
	return p->way == GREET_MUNGE ? munge_steps : key_steps;
}

static int watch(struct greet *g, unsigned ms, struct error *err)
{
	int in = g->transport.in, out = g->transport.out;
	int rc = loop_add_fd(g->loop, in, in == out ? EPOLLIN | EPOLLOUT : EPOLLIN, on_event, g,
			     &g->on_in);

	if (rc == 0 && in != out)
		rc = loop_add_fd(g->loop, out, EPOLLOUT, on_event, g, &g->on_out);
	if (rc == 0)
		rc = loop_add_timer(g->loop, on_timer, g, &g->timer);
	if (rc == 0)
		rc = loop_set_timer(g->timer, ms * 1000000ull, 0);
	return rc < 0 ? error_errno(err, rc, "a greeting on the event loop") : 0;
}

static void copy_params(struct greet *g, const struct greet_params *p)
{
	g->loop = p->loop;
	g->called = p->called;
	g->way = p->way;
	snprintf(g->self, sizeof(g->self), "%s", p->self);
	snprintf(g->node, sizeof(g->node), "%s", p->node ? p->node : "");
	g->credentials = p->credentials;
	g->daemon = p->daemon;
	if (p->nkey)
		memcpy(g->cluster, p->key, p->nkey);
	g->ncluster = p->nkey;
	g->step = steps_of(p);
}

int greet_start(const struct greet_params *params, greet_fn *fn, void *arg, struct greet **ret,
		struct error *err)
{
	struct greet *g = NULL;
	int rc = check_params(params, err);

	if (rc < 0)
		return rc;
	g = calloc(1, sizeof(*g));
	if (!g)
		return error_set(err, -ENOMEM, "out of memory");
	copy_params(g, params);
	g->fn = fn;
	g->arg = arg;
	rc = transport_init(&g->transport, params->in, params->out, NULL, err);
	if (rc == 0)
		rc = watch(g, params->timeout_ms ? params->timeout_ms : GREET_MS, err);
	if (rc < 0) {
		greet_free(g);
		return rc;
	}
	*ret = g;
	return 0;
}
