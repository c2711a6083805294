/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: what comes is told, what is to go waits for the socket, and silence is death. */

#include "channel/conn.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "channel/stream.h"
#include "channel/transport.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define MS 1000000ull
#define READS 4			/* in a row, before others have their turn */
#define DATA_MAX (64u << 10)	/* of a stream in one frame of ours */
#define DATA_AHEAD (128u << 10) /* bytes that wait, beyond which streams do */

struct conn {
	struct transport transport;
	const struct conn_ops *ops;
	void *arg;
	struct loop_source *on_in, *on_out, *timer;
	struct frame_reader reader;
	struct streams streams;
	uint8_t *queue;
	size_t start, used, room, queue_max;
	uint64_t alive_ns, dead_ns;		 /* how long */
	uint64_t heard_ns, written_ns, moved_ns; /* when; moved: something of the queue went */
	uint64_t due_ns;			 /* when the timer rings */
	uint64_t messages_in, messages_out, bytes_in, bytes_out;
	short out_wait;	  /* what a write waits for */
	uint32_t watched; /* EPOLLOUT, while it waits for that */
	bool pumping;
	bool finishing; /* nothing is accepted any more */
	bool shut;	/* and all is written */
	bool failed;	/* code and reason hold; closed() is due or done */
	bool told;
	unsigned depth; /* of callbacks: freed behind the last */
	bool destroyed;
	int code;
	struct error reason;
};

/* -------- ending -------- */

static void free_conn(struct conn *conn)
{
	transport_done(&conn->transport);
	frame_reader_done(&conn->reader);
	streams_done(&conn->streams);
	free(conn->queue);
	free(conn);
}

static void stop(struct conn *conn)
{
	loop_remove(&conn->on_in);
	loop_remove(&conn->on_out);
}

/* The verdict; closed() comes of the timer, never out of a call. */
static void give_up(struct conn *conn, int code, const char *reason)
{
	if (conn->failed)
		return;
	conn->failed = true;
	conn->code = code;
	error_set(&conn->reason, code, "%s", reason);
	stop(conn);
	loop_set_timer(conn->timer, 1, 0);
}

static void tell_closed(struct conn *conn)
{
	if (conn->told || conn->destroyed)
		return;
	conn->told = true;
	loop_remove(&conn->timer);
	conn->ops->closed(conn->arg, conn->code, conn->reason.text);
}

/* -------- what goes out -------- */

static void *queue_add(struct conn *conn, size_t n)
{
	if (conn->start > conn->used) {
		memmove(conn->queue, conn->queue + conn->start, conn->used);
		conn->start = 0;
	}
	if (n > conn->room - conn->start - conn->used) {
		size_t more = conn->room ? conn->room : 1024;
		uint8_t *bigger;

		while (more < conn->start + conn->used + n)
			more *= 2;
		bigger = realloc(conn->queue, more);
		if (!bigger)
			return NULL;
		conn->queue = bigger;
		conn->room = more;
	}
	if (!conn->used)
		conn->moved_ns = io_now_ns();
	conn->used += n;
	return conn->queue + conn->start + conn->used - n;
}

static void queue_sent(struct conn *conn, size_t n)
{
	conn->start += n;
	conn->used -= n;
	conn->bytes_out += n;
	conn->written_ns = conn->moved_ns = io_now_ns();
	if (conn->used)
		return;
	conn->start = 0;
	if (conn->room > DATA_AHEAD) {
		free(take_ptr(conn->queue));
		conn->room = 0;
	}
}

/* What the socket takes. */
static void write_queue(struct conn *conn)
{
	struct error err = {{0}};

	conn->out_wait = 0;
	while (conn->used && !conn->failed) {
		ssize_t n = transport_write(&conn->transport, conn->queue + conn->start, conn->used,
					    &conn->out_wait, &err);

		if (n == -EAGAIN)
			return;
		if (n < 0)
			give_up(conn, (int)n, err.text);
		else
			queue_sent(conn, (size_t)n);
	}
}

/* One frame of a stream; how many bytes of data are in it. */
static size_t queue_data(struct conn *conn, struct stream *stream)
{
	size_t n = stream->used < stream->out_credit ? stream->used : stream->out_credit;
	uint8_t *p;
	uint32_t be = htobe32(stream->number);

	if (n > DATA_MAX)
		n = DATA_MAX;
	p = queue_add(conn, FRAME_HEADER + FRAME_STREAM + n);
	if (!p) {
		give_up(conn, -ENOMEM, "out of memory");
		return 0;
	}
	frame_header(p, FRAME_DATA, FRAME_STREAM + n);
	memcpy(p + FRAME_HEADER, &be, FRAME_STREAM);
	if (!stream_get(stream, p + FRAME_HEADER + FRAME_STREAM, n))
		stream->out_ended = true;
	return n;
}

static struct stream *next_ready(struct conn *conn)
{
	for (struct stream *s = conn->streams.first; s; s = s->next)
		if (stream_ready(s))
			return s;
	return NULL;
}

/* Streams have their turns one after the other: who was served goes to the end of the list. */
static void to_the_end(struct streams *s, struct stream *stream)
{
	struct stream **link = &s->first;

	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	while (*link)
		link = &(*link)->next;
	*link = stream;
	stream->next = NULL;
}

static void pump_streams(struct conn *conn)
{
	struct stream *s;

	conn->pumping = true;
	while (!conn->failed && !conn->destroyed && conn->used < DATA_AHEAD &&
	       (s = next_ready(conn))) {
		uint32_t number = s->number;
		size_t n = queue_data(conn, s);

		if (!streams_settle(&conn->streams, s))
			to_the_end(&conn->streams, s);
		write_queue(conn);
		if (n && conn->ops->sent)
			conn->ops->sent(conn->arg, number, n);
	}
	conn->pumping = false;
}

static void on_in(void *arg, uint32_t events);
static void on_out(void *arg, uint32_t events);

/* A socket has one source, pipes have two. */
static void update_events(struct conn *conn)
{
	uint32_t out = conn->used ? EPOLLOUT : 0;

	if (conn->failed || conn->destroyed)
		return;
	if (conn->used && conn->out_wait == POLLIN)
		out = 0;
	if (out == conn->watched)
		return;
	conn->watched = out;
	if (conn->on_out)
		loop_modify_fd(conn->on_out, out);
	else if (conn->on_in && conn->transport.in == conn->transport.out)
		loop_modify_fd(conn->on_in, EPOLLIN | out);
}

/* The last word is written: the peer sees the end and hangs up as well. */
static void finish_writing(struct conn *conn)
{
	if (!conn->finishing || conn->shut || conn->used || next_ready(conn))
		return;
	conn->shut = true;
	loop_remove(&conn->on_out);
	transport_shut(&conn->transport);
}

static void push(struct conn *conn)
{
	if (conn->pumping || conn->failed)
		return;
	conn->depth++;
	write_queue(conn);
	pump_streams(conn);
	if (!conn->failed && !conn->destroyed) {
		finish_writing(conn);
		update_events(conn);
	}
	if (!--conn->depth && conn->destroyed)
		free_conn(conn);
}

static int check_open(const struct conn *conn, struct error *err)
{
	if (conn->failed || conn->finishing)
		return error_set(err, -EPIPE, "the connection has ended");
	return 0;
}

static int send_frame(struct conn *conn, const uint8_t *frame, size_t n, struct error *err)
{
	void *p;

	if (conn->used + n > conn->queue_max + DATA_AHEAD) {
		give_up(conn, -ENOBUFS, "it does not read what it is sent");
		return error_set(err, -ENOBUFS, "%s", conn->reason.text);
	}
	p = queue_add(conn, n);
	if (!p) {
		give_up(conn, -ENOMEM, "out of memory");
		return error_set(err, -ENOMEM, "out of memory");
	}
	memcpy(p, frame, n);
	conn->messages_out++;
	push(conn);
	return 0;
}

int conn_send(struct conn *conn, const json_t *message, struct error *err)
{
	CLEANUP_FREE uint8_t *frame = NULL;
	size_t n;
	int rc = check_open(conn, err);

	if (rc == 0)
		rc = frame_encode(message, FRAME_MAX, &frame, &n, err);
	return rc < 0 ? rc : send_frame(conn, frame, n, err);
}

int conn_send_with(struct conn *conn, const json_t *own, const char *rest, struct error *err)
{
	CLEANUP_FREE uint8_t *frame = NULL;
	size_t n;
	int rc = check_open(conn, err);

	if (rc == 0)
		rc = frame_encode_with(own, rest, FRAME_MAX, &frame, &n, err);
	return rc < 0 ? rc : send_frame(conn, frame, n, err);
}

static void send_new(struct conn *conn, json_t *message)
{
	if (message)
		conn_send(conn, message, NULL);
	json_decref(message);
}

void conn_fail(struct conn *conn, int code, const char *reason)
{
	if (conn->failed)
		return;
	send_new(conn,
		 json_pack("{s:s, s:i, s:s}", "event", "closed", "errno", -code, "error", reason));
	give_up(conn, code, reason);
}

void conn_finish(struct conn *conn)
{
	conn->finishing = true;
	push(conn);
}

/* -------- streams -------- */

uint32_t conn_next_stream(struct conn *conn, int called)
{
	uint32_t last = conn->streams.last[!called];

	return last ? last + 2 : called ? 2 : 1;
}

int conn_open(struct conn *conn, uint32_t stream, struct error *err)
{
	return streams_open(&conn->streams, stream, err);
}

int conn_write(struct conn *conn, uint32_t stream, const void *data, size_t n)
{
	struct stream *s = streams_find(&conn->streams, stream);
	int rc = !s || conn->failed ? -EPIPE : n ? stream_put(s, data, n) : 0;

	if (rc == 0)
		push(conn);
	return rc;
}

void conn_end(struct conn *conn, uint32_t stream)
{
	struct stream *s = streams_find(&conn->streams, stream);

	if (!s || s->out_ends)
		return;
	s->out_ends = true;
	push(conn);
}

void conn_grant(struct conn *conn, uint32_t stream, size_t n)
{
	struct stream *s = streams_find(&conn->streams, stream);

	if (!s || s->in_ended || !n || conn->failed || conn->finishing)
		return;
	s->in_credit += n;
	send_new(conn, json_pack("{s:s, s:I, s:I}", "op", "credit", "stream", (json_int_t)stream,
				 "bytes", (json_int_t)n));
}

/* -------- what comes in -------- */

static void hear_credit(struct conn *conn, const json_t *message)
{
	json_int_t number = json_integer_value(json_object_get(message, "stream"));
	json_int_t n = json_integer_value(json_object_get(message, "bytes"));
	struct stream *s = number > 0 && number <= UINT32_MAX
				   ? streams_find(&conn->streams, (uint32_t)number)
				   : NULL;

	/* Credit of a stream that has just ended is late, not wrong. */
	if (!s)
		return;
	if (n <= 0 || n > CONN_WINDOW || s->out_credit + (uint64_t)n > CONN_WINDOW) {
		conn_fail(conn, -EPROTO, "more credit than a stream may have");
		return;
	}
	s->out_credit += (uint64_t)n;
	push(conn);
}

static void hear_closed(struct conn *conn, const json_t *message)
{
	const char *why = json_string_value(json_object_get(message, "error"));
	json_int_t code = json_integer_value(json_object_get(message, "errno"));
	struct error err;

	error_set(&err, -EPROTO, "the other side ended it: %s", why ? why : "it does not say why");
	give_up(conn, code > 0 && code < 4096 ? -(int)code : -EPROTO, err.text);
}

static void hear_message(struct conn *conn, json_t *message)
{
	const char *op = json_string_value(json_object_get(message, "op"));
	const char *event = json_string_value(json_object_get(message, "event"));

	conn->messages_in++;
	if (op && !strcmp(op, "credit"))
		hear_credit(conn, message);
	else if (event && !strcmp(event, "closed"))
		hear_closed(conn, message);
	else
		conn->ops->message(conn->arg, message);
	json_decref(message);
}

static void hear_data(struct conn *conn, const struct frame *frame)
{
	struct stream *s = streams_find(&conn->streams, frame->stream);

	if (!s || s->in_ended) {
		conn_fail(conn, -EPROTO, "data of a stream that is not open");
		return;
	}
	if (frame->size > s->in_credit) {
		conn_fail(conn, -EPROTO, "more data than a stream has credit for");
		return;
	}
	s->in_credit -= frame->size;
	s->in_ended = !frame->size;
	streams_settle(&conn->streams, s);
	conn->ops->data(conn->arg, frame->stream, frame->data, frame->size);
}

static void take_frames(struct conn *conn)
{
	struct error err = {{0}};
	struct frame frame;
	int rc = 0;

	while (!conn->failed && !conn->destroyed &&
	       (rc = frame_take(&conn->reader, &frame, &err)) > 0) {
		if (frame.type == FRAME_MESSAGE)
			hear_message(conn, frame.message);
		else if (frame.type == FRAME_DATA)
			hear_data(conn, &frame);
	}
	if (rc < 0)
		conn_fail(conn, rc, err.text);
}

static void hear_end(struct conn *conn)
{
	if (frame_is_cut(&conn->reader))
		give_up(conn, -EPIPE, "the connection was cut");
	else if (conn->shut)
		give_up(conn, 0, "it has ended");
	else
		give_up(conn, 0, "the other side hung up");
}

/* 1: there may be more. */
static int read_some(struct conn *conn)
{
	struct error err = {{0}};
	short wait = 0;
	size_t room;
	uint8_t *p = frame_room(&conn->reader, &room);
	ssize_t n = p ? transport_read(&conn->transport, p, room, &wait, &err) : -ENOMEM;

	if (n == -EAGAIN)
		return 0;
	if (n < 0) {
		give_up(conn, (int)n, p ? err.text : "out of memory");
		return 0;
	}
	conn->heard_ns = io_now_ns();
	conn->bytes_in += (uint64_t)n;
	if (!n) {
		hear_end(conn);
		return 0;
	}
	frame_added(&conn->reader, (size_t)n);
	take_frames(conn);
	return (size_t)n == room || transport_pending(&conn->transport);
}

static void hear(struct conn *conn)
{
	int more = 1;

	for (unsigned i = 0; more && i < READS && !conn->failed && !conn->destroyed; i++)
		more = read_some(conn);
	/* What TLS has read already no poll tells of. */
	if (more && !conn->failed && !conn->destroyed && transport_pending(&conn->transport))
		loop_set_timer(conn->timer, 1, 0);
}

/* -------- the reactor -------- */

static void leave(struct conn *conn)
{
	if (conn->failed && conn->depth == 1)
		tell_closed(conn);
	if (!--conn->depth && conn->destroyed)
		free_conn(conn);
}

static void on_in(void *arg, uint32_t events)
{
	struct conn *conn = arg;

	conn->depth++;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		hear(conn);
	if (!conn->destroyed && !conn->failed && (events & EPOLLOUT || conn->out_wait == POLLIN))
		push(conn);
	leave(conn);
}

/* Of a pipe whose reader has gone, also where nothing is to be written. */
static void on_out(void *arg, uint32_t events)
{
	struct conn *conn = arg;

	conn->depth++;
	if (events & EPOLLERR) {
		hear(conn);
		give_up(conn, -EPIPE, "the other side hung up");
	}
	if (!(events & EPOLLERR))
		push(conn);
	leave(conn);
}

/*
 * Silence is judged behind what has come, and the time that we slept does not count: the peer may
 * have slept as long, on the same machine.
 */
static void judge(struct conn *conn)
{
	uint64_t now = io_now_ns(), late = now > conn->due_ns ? now - conn->due_ns : 0;

	if (conn->failed || conn->destroyed)
		return;
	if (late > conn->alive_ns) {
		conn->heard_ns += now - conn->heard_ns < late ? 0 : late;
		conn->moved_ns += now - conn->moved_ns < late ? 0 : late;
	}
	if (now - conn->heard_ns >= conn->dead_ns)
		give_up(conn, -ETIMEDOUT, "it has said nothing for too long");
	else if (conn->used && now - conn->moved_ns >= conn->dead_ns)
		give_up(conn, -ETIMEDOUT, "it has read nothing for too long");
}

static void say_alive(struct conn *conn)
{
	uint8_t *p;

	if (conn->failed || conn->shut || conn->used ||
	    io_now_ns() - conn->written_ns < conn->alive_ns)
		return;
	p = queue_add(conn, FRAME_HEADER);
	if (!p)
		return;
	frame_header(p, FRAME_ALIVE, 0);
	push(conn);
}

static uint64_t until(uint64_t since, uint64_t time, uint64_t now)
{
	return since + time > now ? since + time - now : 1;
}

static void set_timer(struct conn *conn)
{
	uint64_t now = io_now_ns();
	uint64_t next = until(conn->heard_ns, conn->dead_ns, now);
	uint64_t alive = conn->used || conn->shut ? conn->alive_ns
						  : until(conn->written_ns, conn->alive_ns, now);

	next = alive < next ? alive : next;
	conn->due_ns = now + next;
	loop_set_timer(conn->timer, next, 0);
}

static void on_timer(void *arg)
{
	struct conn *conn = arg;

	conn->depth++;
	if (!conn->failed)
		hear(conn);
	if (!conn->failed && !conn->destroyed) {
		judge(conn);
		say_alive(conn);
	}
	if (!conn->failed && !conn->destroyed && !transport_pending(&conn->transport))
		set_timer(conn);
	leave(conn);
}

static int watch(struct conn *conn, struct loop *loop, struct error *err)
{
	struct transport *t = &conn->transport;
	int rc = loop_add_fd(loop, t->in, EPOLLIN, on_in, conn, &conn->on_in);

	if (rc == 0 && t->in != t->out)
		rc = loop_add_fd(loop, t->out, 0, on_out, conn, &conn->on_out);
	if (rc == 0)
		rc = loop_add_timer(loop, on_timer, conn, &conn->timer);
	return rc < 0 ? error_errno(err, rc, "a connection on the event loop") : 0;
}

int conn_create(const struct conn_params *params, struct conn **ret, struct error *err)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int rc;

	if (!conn)
		return error_set(err, -ENOMEM, "out of memory");
	conn->ops = params->ops;
	conn->arg = params->arg;
	conn->reader.max = params->frame_max ? params->frame_max : FRAME_MAX;
	conn->queue_max = params->queue_max ? params->queue_max : CONN_QUEUE_MAX;
	conn->alive_ns = MS * (params->alive_ms ? params->alive_ms : CONN_ALIVE_MS);
	conn->dead_ns = MS * (params->dead_ms ? params->dead_ms : CONN_DEAD_MS);
	conn->heard_ns = conn->written_ns = conn->moved_ns = conn->due_ns = io_now_ns();
	rc = transport_init(&conn->transport, params->in, params->out, params->tls, err);
	if (rc == 0)
		rc = watch(conn, params->loop, err);
	if (rc < 0) {
		stop(conn);
		loop_remove(&conn->timer);
		free(conn);
		return rc;
	}
	/* What came with the greeting no poll may tell of. */
	loop_set_timer(conn->timer, 1, 0);
	*ret = conn;
	return 0;
}

void conn_destroy(struct conn *conn)
{
	if (!conn || conn->destroyed)
		return;
	if (!conn->failed)
		write_queue(conn);
	stop(conn);
	loop_remove(&conn->timer);
	conn->destroyed = true;
	if (!conn->depth)
		free_conn(conn);
}

void conn_set_ops(struct conn *conn, const struct conn_ops *ops, void *arg)
{
	conn->ops = ops;
	conn->arg = arg;
}

struct conn_counts conn_counts(const struct conn *conn)
{
	return (struct conn_counts){conn->messages_in, conn->messages_out, conn->bytes_in,
				    conn->bytes_out, conn->used};
}
