/* SPDX-License-Identifier: Apache-2.0 */
/* A call to another node, step by step: its addresses, one of them that answers, who it is. */

#include "node/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "channel/conn.h"
#include "channel/tls.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/lookup.h"
#include "lib/loop.h"
#include "node/launch.h"
#include "node/nodename.h"

#define ADDRESS_NS (2 * 1000000000ull) /* until the next one of a host is tried */
#define ALL_NS (10 * 1000000000ull)    /* to be connected; the greeting has its own */

struct dial {
	struct dial_params p;
	struct greet_params greet;
	struct nodename node;
	dial_fn *fn;
	void *arg;
	struct lookup *lookup;
	const struct addrinfo *next; /* address to be tried; the lookup's */
	int fd;
	struct loop_source *on_lookup, *on_fd, *address_timer, *timer;
	struct launch *launch;
	struct greet *greeting;
};

static void no_message(void *arg, json_t *message)
{
}

static void no_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
}

/* Until somebody else hears it: nothing comes before that. */
static const struct conn_ops no_ops = {no_message, no_data, NULL, NULL};

static void forget_connecting(struct dial *d)
{
	loop_remove(&d->on_fd);
	loop_remove(&d->address_timer);
	if (d->fd >= 0)
		close(take_fd(&d->fd));
}

void dial_cancel(struct dial *d)
{
	if (!d)
		return;
	greet_cancel(d->greeting);
	forget_connecting(d);
	loop_remove(&d->on_lookup);
	loop_remove(&d->timer);
	lookup_drop(&d->lookup);
	launch_forget(d->launch);
	free(d);
}

static const char *where(const struct dial *d, char ret[400])
{
	if (d->p.launches)
		snprintf(ret, 400, "%s (by %s)", d->node.name, launches_command(d->p.launches));
	else
		snprintf(ret, 400, "%s (%s port %s)", d->node.name, d->node.host, d->node.port);
	return ret;
}

static void finish(struct dial *d, int code, const char *reason, struct conn *conn)
{
	dial_fn *fn = d->fn;
	void *arg = d->arg;
	struct error err;
	char at[400];

	error_set(&err, code, "%s: %s", where(d, at), reason);
	dial_cancel(d);
	fn(arg, code, err.text, conn);
}

/* -------- greeting -------- */

static const char *remedy(int code)
{
	switch (code) {
	case -EACCES:
		return "; nodes of a cluster have the same key (wispd --key) or MUNGE";
	case -EPIPE:
	case -ECONNRESET:
		return "; its log says why";
	default:
		return "";
	}
}

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	struct dial *d = arg;
	struct conn_params params = {.loop = d->p.loop, .in = d->fd, .out = d->fd, .ops = &no_ops};
	struct conn *conn = NULL;
	struct error err;

	d->greeting = NULL;
	if (code) {
		error_set(&err, code, "%s%s", reason, d->p.launches ? "" : remedy(code));
	} else {
		params.tls = peer->tls;
		code = conn_create(&params, &conn, &err);
		if (code)
			tls_destroy(peer->tls);
	}
	if (!code)
		take_fd(&d->fd);
	finish(d, code, err.text, conn);
}

/* 0, or -errno with the reason: then nothing has changed. */
static int greet(struct dial *d, struct error *err)
{
	d->greet.loop = d->p.loop;
	d->greet.in = d->greet.out = d->fd;
	d->greet.called = false;
	d->greet.node = d->node.name;
	d->greet.way = d->p.launches ? GREET_LAUNCHED : d->greet.nkey ? GREET_KEY : GREET_MUNGE;
	loop_remove(&d->timer);
	return greet_start(&d->greet, on_greeted, d, &d->greeting, err);
}

/* -------- connecting -------- */

static void try_next(struct dial *d, int code, const char *reason);

static void on_connected(void *arg, uint32_t events)
{
	struct dial *d = arg;
	const int on = 1;
	socklen_t n = sizeof(int);
	int code = 0, r;
	struct error err;

	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &code, &n))
		code = errno;
	if (code) {
		error_errno(&err, -code, "cannot connect%s",
			    code == ECONNREFUSED ? " (no wispd --listen is there)" : "");
		try_next(d, -code, err.text);
		return;
	}
	loop_remove(&d->on_fd);
	loop_remove(&d->address_timer);
	setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	r = greet(d, &err);
	if (r)
		finish(d, r, err.text, NULL);
}

static void on_address_timer(void *arg)
{
	try_next(arg, -ETIMEDOUT, "it does not answer");
}

static int connect_to(struct dial *d, const struct addrinfo *to, struct error *err)
{
	int r = 0;

	d->fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0 || (connect(d->fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS))
		r = error_errno(err, -errno, "cannot connect");
	if (!r)
		r = loop_add_fd(d->p.loop, d->fd, EPOLLOUT, on_connected, d, &d->on_fd);
	if (!r && to->ai_next)
		r = loop_add_timer(d->p.loop, on_address_timer, d, &d->address_timer);
	if (!r && to->ai_next)
		r = loop_set_timer(d->address_timer, ADDRESS_NS, 0);
	return r;
}

/* The address that was tried does not answer, for that reason. */
static void try_next(struct dial *d, int code, const char *reason)
{
	struct error err;

	error_set(&err, code, "%s", reason);
	forget_connecting(d);
	while (d->next) {
		const struct addrinfo *to = d->next;

		d->next = to->ai_next;
		code = connect_to(d, to, &err);
		if (!code)
			return;
		forget_connecting(d);
	}
	finish(d, code, err.text, NULL);
}

static void on_lookup(void *arg, uint32_t events)
{
	struct dial *d = arg;
	struct error err;
	int r = lookup_result(d->lookup, &d->next, &err);

	loop_remove(&d->on_lookup);
	if (r)
		finish(d, r, err.text, NULL);
	else
		try_next(d, -EHOSTUNREACH, "it has no address");
}

static int look_up(struct dial *d, struct error *err)
{
	int r = lookup_start(d->node.host, d->node.port, &d->lookup, err);

	if (!r)
		r = loop_add_fd(d->p.loop, lookup_fd(d->lookup), EPOLLIN, on_lookup, d,
				&d->on_lookup);
	return r;
}

/* -------- launching -------- */

static void on_launch_ended(void *arg, const char *reason)
{
	struct dial *d = arg;

	d->launch = NULL;
	finish(d, -EHOSTUNREACH, reason, NULL);
}

static int launch(struct dial *d, struct error *err)
{
	int r;

	if (d->node.has_port)
		return error_set(err, -EINVAL,
				 "a node that is reached by a launcher has no port: %s",
				 d->node.port);
	r = launch_start(d->p.launches, &d->node, on_launch_ended, d, &d->fd, &d->launch, err);
	return r ? r : greet(d, err);
}

/* -------- its beginning -------- */

static void on_timer(void *arg)
{
	finish(arg, -ETIMEDOUT, "no connection in time", NULL);
}

static int check_ways(const struct dial_params *p, struct error *err)
{
	if (p->launches || p->greet->nkey || p->greet->credentials)
		return 0;
	return error_set(err, -ENOKEY,
			 "this node's wispd has no key of a cluster (wispd --key), no MUNGE and no "
			 "launcher: it can call no other node");
}

static int start(struct dial *d, struct error *err)
{
	int r = loop_add_timer(d->p.loop, on_timer, d, &d->timer);

	if (!r)
		r = loop_set_timer(d->timer, ALL_NS, 0);
	if (r)
		return error_errno(err, r, "a call on the event loop");
	return d->p.launches ? launch(d, err) : look_up(d, err);
}

int dial_start(const struct dial_params *params, const char *node, dial_fn *fn, void *arg,
	       struct dial **ret, struct error *err)
{
	struct dial *d;
	int r = check_ways(params, err);

	if (r)
		return r;
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	*d = (struct dial){.p = *params, .greet = *params->greet, .fn = fn, .arg = arg, .fd = -1};
	r = nodename_parse(node, &d->node, err);
	if (!r)
		r = start(d, err);
	if (r) {
		dial_cancel(d);
		return r;
	}
	*ret = d;
	return 0;
}
