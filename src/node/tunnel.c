/* SPDX-License-Identifier: Apache-2.0 */
/* One stream of a connection to the daemon, and a socket pair: a thread between them. */

#include "node/tunnel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "node/ask.h"

#define STREAM 1
#define ID 1
#define PIECE (32u << 10) /* bytes that are read at once */

struct tunnel {
	struct loop *loop;
	struct conn *conn; /* NULL: it is over */
	int fd;		   /* our end of the pair */
	struct loop_source *on_fd;
	uint8_t *waiting; /* from the stream, for the descriptor: a window at most */
	size_t start, used;
	size_t room;	/* that the stream has for what the descriptor brings */
	bool in_ended;	/* nothing more comes from the stream */
	bool out_ended; /* nor from the descriptor */
	bool deaf;	/* nobody reads from the descriptor */
	bool answered;
	int code;
	struct error reason;
};

/* -------- its end -------- */

static void tunnel_free(struct tunnel *t)
{
	conn_destroy(t->conn);
	loop_remove(&t->on_fd);
	loop_destroy(t->loop);
	cleanup_close_fd(&t->fd);
	free(t->waiting);
	free(t);
}

static void fail(struct tunnel *t, int code, const char *reason)
{
	t->code = error_set(&t->reason, code, "wispd: %s", reason);
	t->answered = true;
	conn_destroy(take_ptr(t->conn));
}

/* Both ways are over, and the last word has left. */
static void settle(struct tunnel *t)
{
	if (t->conn && t->out_ended && t->room == CONN_WINDOW &&
	    (t->deaf || (t->in_ended && !t->used)))
		conn_finish(t->conn);
}

static void on_fd(void *arg, uint32_t events);

/* A descriptor that was closed says so as long as it is watched. */
static void watch(struct tunnel *t)
{
	bool reads = !t->out_ended && t->room >= PIECE, closes = !t->in_ended && !t->deaf;
	uint32_t events = (reads ? EPOLLIN : 0) | (t->used ? EPOLLOUT : 0);

	if (!events && !(t->out_ended && closes))
		loop_remove(&t->on_fd);
	else if (t->on_fd)
		loop_modify_fd(t->on_fd, events);
	else if (loop_add_fd(t->loop, t->fd, events, on_fd, t, &t->on_fd))
		fail(t, -ENOMEM, "out of memory");
}

/* -------- from the stream to the descriptor -------- */

/* What comes for a reader that has gone is lost, and may come no less. */
static void go_deaf(struct tunnel *t)
{
	t->deaf = true;
	conn_grant(t->conn, STREAM, t->used);
	t->start = t->used = 0;
}

static void write_out(struct tunnel *t)
{
	while (t->conn && t->used) {
		size_t n = CONN_WINDOW - t->start;
		ssize_t done = send(t->fd, t->waiting + t->start, n < t->used ? n : t->used,
				    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (done < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (done < 0) {
			go_deaf(t);
			return;
		}
		t->start = (t->start + (size_t)done) % CONN_WINDOW;
		t->used -= (size_t)done;
		conn_grant(t->conn, STREAM, (size_t)done);
	}
	if (!t->used && t->in_ended)
		shutdown(t->fd, SHUT_WR);
}

/* The credit that it has is the room that is there. */
static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct tunnel *t = arg;
	size_t at = (t->start + t->used) % CONN_WINDOW;
	size_t first = n < CONN_WINDOW - at ? n : CONN_WINDOW - at;

	t->in_ended |= !n;
	if (t->deaf) {
		conn_grant(t->conn, STREAM, n);
		settle(t);
		return;
	}
	memcpy(t->waiting + at, data, first);
	memcpy(t->waiting, data + first, n - first);
	t->used += n;
	write_out(t);
	watch(t);
	settle(t);
}

/* -------- from the descriptor to the stream -------- */

static void end_out(struct tunnel *t)
{
	t->out_ended = true;
	conn_end(t->conn, STREAM);
}

static void read_in(struct tunnel *t)
{
	uint8_t data[PIECE];
	ssize_t n = recv(t->fd, data, sizeof(data), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_out(t);
		return;
	}
	t->room -= (size_t)n;
	if (conn_write(t->conn, STREAM, data, (size_t)n))
		end_out(t);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct tunnel *t = arg;

	t->room += n;
	watch(t);
	settle(t);
}

static void on_fd(void *arg, uint32_t events)
{
	struct tunnel *t = arg;

	if (!t->conn) /* since this event was due */
		return;
	if (events & EPOLLOUT)
		write_out(t);
	if (!t->out_ended && t->room >= PIECE && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_in(t);
	if (t->out_ended && !t->in_ended && events & (EPOLLHUP | EPOLLERR))
		go_deaf(t);
	watch(t);
	settle(t);
}

/* -------- the connection -------- */

static void on_message(void *arg, json_t *message)
{
	struct tunnel *t = arg;
	const char *event = json_string_value(json_object_get(message, "event"));
	const char *why = json_string_value(json_object_get(message, "error"));
	int code = (int)json_integer_value(json_object_get(message, "errno"));

	if (json_integer_value(json_object_get(message, "re")) == ID) {
		t->answered = true;
		t->code = code ? error_set(&t->reason, code > 0 ? -code : -EPROTO, "%s",
					   why ? why : "refused")
			       : 0;
	} else if (event && !strcmp(event, "reset")) {
		fail(t, -ECONNRESET, "the other side has gone");
	}
}

static void on_closed(void *arg, int code, const char *reason)
{
	fail(arg, code ? code : -EPIPE, reason);
}

static const struct conn_ops ops = {on_message, on_data, on_sent, on_closed};

/* -------- the thread -------- */

static void *thread_main(void *arg)
{
	struct tunnel *t = arg;

	while (t->conn)
		if (loop_run_once(t->loop, -1) < 0)
			break;
	tunnel_free(t);
	return NULL;
}

static int start_thread(struct tunnel *t, struct error *err)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, thread_main, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return error_errno(err, -r, "cannot start a thread");
	pthread_detach(thread);
	return 0;
}

/* -------- its beginning -------- */

static int ask_for(struct tunnel *t, const json_t *request, struct error *err)
{
	json_t *message = json_copy((json_t *)request);
	int r = message ? conn_open(t->conn, STREAM, err)
			: error_set(err, -ENOMEM, "out of memory");

	if (!r) {
		json_object_set_new(message, "op", json_string("connect"));
		json_object_set_new(message, "id", json_integer(ID));
		json_object_set_new(message, "stream", json_integer(STREAM));
		r = conn_send(t->conn, message, err);
	}
	json_decref(message);
	while (!r && !t->answered)
		if (loop_run_once(t->loop, -1) < 0)
			r = error_set(err, -EIO, "the event loop failed");
	if (!r && t->code) {
		*err = t->reason;
		r = t->code;
	}
	return r;
}

static int call(struct tunnel *t, const char *socket, const json_t *request, struct error *err)
{
	struct ask *ask = NULL;
	int r = ask_open(socket, &ask, err);

	if (r)
		return r;
	ask_release(ask, &t->loop, &t->conn);
	conn_set_ops(t->conn, &ops, t);
	r = ask_for(t, request, err);
	if (!r)
		watch(t);
	return r;
}

static int make(struct tunnel **ret, int *theirs, struct error *err)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	int s[2];

	if (t)
		t->waiting = malloc(CONN_WINDOW);
	if (!t || !t->waiting) {
		free(t);
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s)) {
		free(t->waiting);
		free(t);
		return error_errno(err, -errno, "cannot make a connection");
	}
	t->fd = s[0];
	t->room = CONN_WINDOW;
	*theirs = s[1];
	*ret = t;
	return 0;
}

int tunnel_open(const char *socket, const json_t *request, int *ret, struct error *err)
{
	CLEANUP_CLOSE int theirs = -1;
	struct tunnel *t = NULL;
	int r = make(&t, &theirs, err);

	if (r)
		return r;
	r = call(t, socket, request, err);
	if (!r)
		r = start_thread(t, err);
	if (r) {
		tunnel_free(t);
		return r;
	}
	*ret = take_fd(&theirs);
	return 0;
}
