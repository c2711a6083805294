/* SPDX-License-Identifier: Apache-2.0 */
/* Two streams as one. */

#include "node/daemon-splice.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "channel/conn.h"
#include "lib/error.h"
#include "node/daemon.h"

struct end {
	struct conn *conn; /* NULL: it is not there yet, or */
	bool gone;	   /* not any more */
	uint32_t stream;
	size_t waiting; /* bytes that were written to it and have not left */
	bool ended;	/* nothing more comes from it */
};

struct splice {
	struct splice *next;
	struct daemon *d;
	struct end end[2]; /* who asked, and what was asked for */
	splice_fn *over;
	void *arg;
};

static void remove_splice(struct splice *s)
{
	struct splice **at = &s->d->splices;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
}

static void finish(struct splice *s)
{
	splice_fn *over = s->over;
	void *arg = s->arg;

	remove_splice(s);
	over(arg);
}

int splice_open(struct daemon *d, struct conn *conn, uint32_t stream, splice_fn *over, void *arg,
		struct splice **ret, struct error *err)
{
	struct splice *s = calloc(1, sizeof(*s));
	int r = s ? conn_open(conn, stream, err) : error_set(err, -ENOMEM, "out of memory");

	if (r) {
		free(s);
		return r;
	}
	*s = (struct splice){.next = d->splices,
			     .d = d,
			     .end[0] = {.conn = conn, .stream = stream},
			     .over = over,
			     .arg = arg};
	d->splices = s;
	*ret = s;
	return 0;
}

void splice_attach(struct splice *s, struct conn *conn, uint32_t stream)
{
	s->end[1] = (struct end){.conn = conn, .stream = stream};
	/* Who has nothing to say may have said so already. */
	if (s->end[0].ended)
		conn_end(conn, stream);
}

void splice_refuse(struct splice *s)
{
	struct end end = s->end[0];

	remove_splice(s);
	conn_end(end.conn, end.stream);
}

static struct splice *find(struct daemon *d, const struct conn *conn, uint32_t stream, int *side)
{
	for (struct splice *s = d->splices; s; s = s->next)
		for (*side = 0; *side < 2; ++*side)
			if (s->end[*side].conn == conn && s->end[*side].stream == stream)
				return s;
	return NULL;
}

void stream_reset(struct conn *conn, uint32_t stream)
{
	json_t *event = json_pack("{s:s, s:I}", "event", "reset", "stream", (json_int_t)stream);

	if (event)
		conn_send(conn, event, NULL);
	json_decref(event);
	conn_end(conn, stream);
}

static void send_reset(const struct end *end)
{
	if (end->conn)
		stream_reset(end->conn, end->stream);
}

/* All that came has left, and nothing more comes, or comes through. */
static void settle(struct splice *s)
{
	const struct end *a = &s->end[0], *b = &s->end[1];

	if (a->waiting || b->waiting || !(a->ended || b->gone) || !(b->ended || a->gone))
		return;
	if (a->gone && !b->ended)
		send_reset(b);
	if (b->gone && !a->ended)
		send_reset(a);
	finish(s);
}

static void hear_end(struct splice *s, int side)
{
	struct end *other = &s->end[!side];

	/* Writing may tell of what has left: until the end is noted that is no reason to go. */
	if (other->conn)
		conn_end(other->conn, other->stream);
	s->end[side].ended = true;
	settle(s);
}

/* There is always room: a side lets come what has left the other. */
static void hear_data(struct splice *s, int side, const uint8_t *data, size_t n)
{
	struct end *other = &s->end[!side];

	if (!other->conn && !other->gone) {
		conn_fail(s->end[side].conn, -EPROTO, "data of a stream that is not connected yet");
		return;
	}
	other->waiting += n;
	if (other->gone || conn_write(other->conn, other->stream, data, n)) {
		other->waiting -= n;
		conn_grant(s->end[side].conn, s->end[side].stream, n);
	}
}

void splice_data(struct daemon *d, struct conn *conn, uint32_t stream, const uint8_t *data,
		 size_t n)
{
	int side;
	struct splice *s = find(d, conn, stream, &side);

	if (!s)
		conn_grant(conn, stream, n);
	else if (n)
		hear_data(s, side, data, n);
	else
		hear_end(s, side);
}

void splice_sent(struct daemon *d, struct conn *conn, uint32_t stream, size_t n)
{
	int side;
	struct splice *s = find(d, conn, stream, &side);

	if (!s)
		return;
	s->end[side].waiting -= n;
	if (!s->end[!side].gone)
		conn_grant(s->end[!side].conn, s->end[!side].stream, n);
	settle(s);
}

void splice_reset(struct daemon *d, struct conn *conn, uint32_t stream)
{
	struct splice *s;
	int side;

	conn_end(conn, stream);
	s = find(d, conn, stream, &side);
	if (!s)
		return;
	send_reset(&s->end[!side]);
	finish(s);
}

static struct splice *find_any(struct daemon *d, const struct conn *conn, int *side)
{
	for (struct splice *s = d->splices; s; s = s->next)
		for (*side = 0; *side < 2; ++*side)
			if (s->end[*side].conn == conn)
				return s;
	return NULL;
}

/* What it said is still brought to the other side, if it came to an end. */
static void side_gone(struct splice *s, int side)
{
	struct end *end = &s->end[side], *other = &s->end[!side];

	end->conn = NULL;
	end->gone = true;
	end->waiting = 0;
	if (end->ended && other->conn) {
		settle(s);
		return;
	}
	send_reset(other);
	finish(s);
}

void streams_gone(struct daemon *d, const struct conn *conn)
{
	struct splice *s;
	int side;

	while ((s = find_any(d, conn, &side)))
		side_gone(s, side);
}
