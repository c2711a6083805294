/* SPDX-License-Identifier: Apache-2.0 */
/* The door of a target. */

#include "mover/migrate-greet.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/address.h"

#define SLICE_MS 20

struct caller {
	struct caller *next;
	struct hearing hearing;
	uint64_t end; /* until then it has to have said who it is */
	bool proven;  /* and waits for its turn */
};

static void remove_caller(struct greeter *g, struct caller *c)
{
	struct caller **at = &g->callers;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	hearing_done(&c->hearing);
	free(c);
}

static void send_away(struct greeter *g, struct caller *c, const char *why)
{
	char who[ADDRESS_TEXT];

	address_peer(c->hearing.ch.fd, who);
	if (g->refused)
		g->refused(g->arg, who, why);
	remove_caller(g, c);
}

/* Somebody connects. */
/* Who has waited longest of those that have not proven the token; of all, if all have. */
static struct caller *first_stranger(const struct greeter *g)
{
	struct caller *c = g->callers;

	while (c && c->proven)
		c = c->next;
	return c ? c : g->callers;
}

static int let_in(struct greeter *g, struct error *err)
{
	const _Atomic bool *const cancel[2] = {g->cancel};
	struct caller *c = calloc(1, sizeof(*c)), **at = &g->callers;
	unsigned n = 0;
	int fd = c ? address_accept(g->listen, SLICE_MS, cancel, err)
		   : error_set(err, -ENOMEM, "out of memory");

	if (fd < 0) {
		free(c);
		return fd;
	}
	hearing_init(&c->hearing, fd, g->secret);
	c->end = io_now_ns() + g->timeout_ms * 1000000ull;
	for (; *at; at = &(*at)->next)
		n++;
	*at = c;
	if (n == GREETER_ROOM)
		send_away(g, first_stranger(g), "too many connect at once");
	return 0;
}

/* Goes on with one. 0: it is the one; -EAGAIN: not yet; else it is to be sent away. */
static int hear(struct caller *c, greeter_check_fn *check, void *arg, struct error *err)
{
	int rc = c->proven ? 0 : hearing_step(&c->hearing, err);

	if (rc == 0) {
		c->proven = true;
		rc = check(arg, &c->hearing.hello, err);
	}
	if (rc == -EAGAIN && io_now_ns() >= c->end)
		rc = error_set(err, -ETIMEDOUT, "it took too long to say who it is");
	return rc;
}

/* Goes on with all, up to the first that may come in. */
static struct caller *hear_all(struct greeter *g, greeter_check_fn *check, void *arg)
{
	struct caller *c = g->callers, *next;

	for (; c; c = next) {
		struct error why = {{0}};
		int rc = hear(c, check, arg, &why);

		next = c->next;
		if (rc == 0)
			return c;
		if (rc != -EAGAIN)
			send_away(g, c, why.text);
	}
	return NULL;
}

/* Waits a little for anybody. 1: somebody connects. */
static int wait_for_any(const struct greeter *g, struct error *err)
{
	struct pollfd p[1 + GREETER_ROOM] = {{.fd = g->listen, .events = POLLIN}};
	nfds_t n = 1;

	if (g->cancel && *g->cancel)
		return error_set(err, -ECANCELED, "cancelled");
	for (const struct caller *c = g->callers; c; c = c->next)
		p[n++] = (struct pollfd){.fd = c->proven ? -1 : c->hearing.ch.fd,
					 .events = c->hearing.wait};
	if (poll(p, n, SLICE_MS) < 0 && errno != EINTR)
		return error_errno(err, -errno, "cannot wait for connections");
	return p[0].revents != 0;
}

/* The channel is of who has come in, no longer the hearing's. */
static void take(struct greeter *g, struct caller *c, struct channel *ret, struct hello *hello)
{
	*hello = c->hearing.hello;
	*ret = c->hearing.ch;
	ret->timeout_ms = g->timeout_ms;
	ret->cancel[0] = g->cancel;
	c->hearing.ch = (struct channel){.fd = -1};
	remove_caller(g, c);
}

int greeter_next(struct greeter *g, unsigned timeout_ms, greeter_check_fn *check, void *arg,
		 struct channel *ret, struct hello *hello, struct error *err)
{
	uint64_t end = io_now_ns() + timeout_ms * 1000000ull;

	for (;;) {
		struct caller *c = hear_all(g, check, arg);
		int rc;

		if (c) {
			take(g, c, ret, hello);
			return 0;
		}
		if (timeout_ms && io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT, "the source did not come");
		rc = wait_for_any(g, err);
		if (rc > 0)
			rc = let_in(g, err);
		if (rc < 0)
			return rc;
	}
}

void greeter_done(struct greeter *g)
{
	while (g->callers)
		remove_caller(g, g->callers);
}
