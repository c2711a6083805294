/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of a connection, and the sockets they go on to. */

#include "part/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"

#define CHUNK 65536

struct pumps {
	struct loop *loop;
	struct conn *conn;
	struct pump *first;
};

struct pump {
	struct pump *next;
	struct pumps *all;
	uint32_t stream;
	int fd; /* -1: not yet */
	struct loop_source *source;
	uint8_t *waiting; /* for the descriptor: CONN_WINDOW, a ring */
	size_t start, used;
	uint8_t *held; /* read, and without room in the stream: CHUNK */
	size_t nheld;
	bool busy;
	bool in_ends, in_ended; /* from the stream: seen, passed on */
	bool out_ended;		/* from the descriptor */
};

static struct pump *find(const struct pumps *all, uint32_t stream)
{
	struct pump *p = all->first;

	while (p && p->stream != stream)
		p = p->next;
	return p;
}

static void pump_free(struct pump *p)
{
	struct pump **at = &p->all->first;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	loop_remove(&p->source);
	cleanup_close_fd(&p->fd);
	free(p->waiting);
	free(p->held);
	free(p);
}

/* -------- to the descriptor -------- */

/* Nobody reads there any more: what comes is used up at once. */
static void drop_waiting(struct pump *p)
{
	if (p->used)
		conn_grant(p->all->conn, p->stream, p->used);
	p->start = p->used = 0;
}

static void drain(struct pump *p)
{
	while (p->used && !p->in_ended) {
		size_t n = CONN_WINDOW - p->start;
		ssize_t sent;

		n = n < p->used ? n : p->used;
		sent = send(p->fd, p->waiting + p->start, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (sent < 0) {
			p->in_ended = true;
			break;
		}
		p->start = (p->start + (size_t)sent) % CONN_WINDOW;
		p->used -= (size_t)sent;
		conn_grant(p->all->conn, p->stream, (size_t)sent);
	}
	if (p->in_ended)
		drop_waiting(p);
	if (p->in_ends && !p->used && !p->in_ended) {
		shutdown(p->fd, SHUT_WR);
		p->in_ended = true;
	}
}

/* -------- from the descriptor -------- */

static void end_stream(struct pump *p)
{
	conn_end(p->all->conn, p->stream);
	p->out_ended = true;
}

/* As much as the stream takes. */
static void fill(struct pump *p)
{
	while (!p->out_ended) {
		if (!p->nheld) {
			ssize_t n = recv(p->fd, p->held, CHUNK, MSG_DONTWAIT);

			if (n < 0 && (errno == EAGAIN || errno == EINTR))
				return;
			if (n <= 0) {
				end_stream(p);
				return;
			}
			p->nheld = (size_t)n;
		}
		switch (conn_write(p->all->conn, p->stream, p->held, p->nheld)) {
		case 0:
			p->nheld = 0;
			break;
		case -EAGAIN:
			return;
		default:
			p->out_ended = true;
		}
	}
}

static void on_ready(void *arg, uint32_t events);

/*
 * What is waited for. Of a hang-up epoll also tells who waits for nothing: that one has no source.
 */
static int wait_for(struct pump *p, uint32_t events)
{
	if (!events)
		loop_remove(&p->source);
	else if (p->source)
		return loop_modify_fd(p->source, events);
	else
		return loop_add_fd(p->all->loop, p->fd, events, on_ready, p, &p->source);
	return 0;
}

/* What the connection is told here it may answer at once (sent()): then this goes on anyway. */
static void go_on(struct pump *p)
{
	if (p->busy)
		return;
	p->busy = true;
	if (p->fd >= 0) {
		drain(p);
		fill(p);
	}
	p->busy = false;
	if (p->in_ends && p->in_ended && p->out_ended)
		pump_free(p);
	else if (p->fd >= 0 &&
		 wait_for(p, (p->used ? EPOLLOUT : 0) | (!p->out_ended && !p->nheld ? EPOLLIN : 0)))
		pump_close(p->all, p->stream);
}

static void on_ready(void *arg, uint32_t events)
{
	go_on(arg);
}

/* -------- the pumps -------- */

int pump_open(struct pumps *all, uint32_t stream, struct error *err)
{
	struct pump *p = calloc(1, sizeof(*p));
	int r = 0;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	*p = (struct pump){.next = all->first,
			   .all = all,
			   .stream = stream,
			   .fd = -1,
			   .waiting = malloc(CONN_WINDOW),
			   .held = malloc(CHUNK)};
	all->first = p;
	if (!p->waiting || !p->held)
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r)
		r = conn_open(all->conn, stream, err);
	if (r)
		pump_free(p);
	return r;
}

void pump_connect(struct pumps *all, uint32_t stream, int fd)
{
	struct pump *p = find(all, stream);

	if (!p || p->fd >= 0 || p->in_ended) {
		close(fd);
		return;
	}
	p->fd = fd;
	go_on(p);
}

void pump_close(struct pumps *all, uint32_t stream)
{
	struct pump *p = find(all, stream);

	if (!p)
		return;
	loop_remove(&p->source);
	cleanup_close_fd(&p->fd);
	p->fd = -1;
	p->in_ended = true;
	drop_waiting(p);
	if (!p->out_ended)
		end_stream(p);
	go_on(p);
}

void pumps_data(struct pumps *all, uint32_t stream, const uint8_t *data, size_t n)
{
	struct pump *p = find(all, stream);
	size_t end, first;

	if (!p)
		return;
	p->in_ends |= !n;
	/* There is never more than was granted. */
	end = (p->start + p->used) % CONN_WINDOW;
	first = n < CONN_WINDOW - end ? n : CONN_WINDOW - end;
	memcpy(p->waiting + end, data, first);
	memcpy(p->waiting, data + first, n - first);
	p->used += n;
	if (p->in_ended)
		drop_waiting(p);
	go_on(p);
}

void pumps_sent(struct pumps *all, uint32_t stream)
{
	struct pump *p = find(all, stream);

	if (p)
		go_on(p);
}

int pumps_create(struct loop *loop, struct conn *conn, struct pumps **ret, struct error *err)
{
	struct pumps *all = calloc(1, sizeof(*all));

	if (!all)
		return error_set(err, -ENOMEM, "out of memory");
	*all = (struct pumps){.loop = loop, .conn = conn};
	*ret = all;
	return 0;
}

void pumps_destroy(struct pumps *all)
{
	while (all && all->first)
		pump_free(all->first);
	free(all);
}
