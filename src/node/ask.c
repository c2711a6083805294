/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the daemon of this node. */

#include "node/ask.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel/conn.h"
#include "channel/greet.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "lib/paths.h"

#define ANSWER_S 60u
#define ROOTS_SOCKET "/run/wisp/node/socket"

struct ask {
	struct loop *loop;
	struct loop_source *patience;
	struct conn *conn;
	unsigned patience_s;
	json_int_t id, awaited;
	const char *interrupt; /* asked when a signal comes; NULL: nothing, or that was asked */
	json_t *answer;
	ask_event_fn *event; /* or NULL */
	void *event_arg;
	bool done;
	int code; /* why it ended */
	struct error why;
};

static void end(struct ask *a, int code, const char *reason)
{
	a->done = true;
	a->code = error_set(&a->why, code, "wispd: %s", reason);
}

static void on_message(void *arg, json_t *message)
{
	struct ask *a = arg;

	if (a->event && json_is_string(json_object_get(message, "event")))
		a->event(a->event_arg, message);
	if (json_integer_value(json_object_get(message, "re")) != a->awaited ||
	    !json_is_true(json_object_get(message, "done")))
		return;
	json_decref(a->answer);
	a->answer = json_incref(message);
	a->done = true;
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct ask *a = arg;

	conn_destroy(a->conn);
	a->conn = NULL;
	end(a, code ? code : -EPIPE, code ? reason : "it has ended the connection");
}

static const struct conn_ops ops = {on_message, on_data, NULL, on_closed};

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	struct ask *a = arg;

	a->done = true;
	if (code)
		end(a, code, reason);
}

static void out_of_patience(void *arg)
{
	end(arg, -ETIMEDOUT, "no answer in time");
}

static void on_signal(void *arg, int signo)
{
	struct ask *a = arg;
	const char *op = take_ptr(a->interrupt);
	json_t *request;

	if (!op) {
		end(a, -EINTR, "interrupted");
		return;
	}
	request = json_pack("{s:s, s:I}", "op", op, "id", ++a->id);
	if (!a->conn || conn_send(a->conn, request, NULL))
		end(a, -EINTR, "interrupted");
	json_decref(request);
}

int ask_set_interrupt(struct ask *a, const char *op, struct error *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	int r = 0;

	a->interrupt = op;
	for (size_t i = 0; !r && i < ARRAY_SIZE(signals); i++) {
		struct loop_source *source;

		r = loop_add_signal(a->loop, signals[i], on_signal, a, &source);
	}
	return r ? error_errno(err, r, "cannot wait for signals") : 0;
}

static void wait_for(struct ask *a)
{
	loop_set_timer(a->patience, a->patience_s * 1000000000ull, 0);
	while (!a->done)
		if (loop_run_once(a->loop, -1) < 0)
			end(a, -EIO, "the event loop failed");
	loop_set_timer(a->patience, 0, 0);
}

void ask_set_patience(struct ask *a, unsigned seconds)
{
	a->patience_s = seconds;
}

void ask_set_events(struct ask *a, ask_event_fn *fn, void *arg)
{
	a->event = fn;
	a->event_arg = arg;
}

static int greet(struct ask *a, int fd, struct error *err)
{
	struct greet_params params = {
		.loop = a->loop, .in = fd, .out = fd, .way = GREET_LOCAL, .self = "program"};
	struct greet *greeting = NULL;
	int r = greet_start(&params, on_greeted, a, &greeting, err);

	if (r)
		return r;
	wait_for(a);
	if (a->code == -ETIMEDOUT)
		greet_cancel(greeting);
	if (a->code)
		*err = a->why;
	return a->code;
}

static int connect_to(struct ask *a, const char *socket, struct error *err)
{
	struct conn_params params = {.ops = &ops, .arg = a};
	int fd = io_unix_connect(socket, err), r;

	if (fd == -ENOENT || fd == -ECONNREFUSED)
		return error_set(err, -ENOENT,
				 "no wispd runs on this node (nothing answers at %s); start it: "
				 "systemctl start wispd, or wispd as yourself",
				 socket);
	if (fd < 0)
		return fd;
	params.in = params.out = fd;
	r = loop_create(&a->loop);
	if (!r)
		r = loop_add_timer(a->loop, out_of_patience, a, &a->patience);
	if (r)
		error_errno(err, r, "cannot set up the event loop");
	params.loop = a->loop;
	if (!r)
		r = greet(a, fd, err);
	if (!r)
		r = conn_create(&params, &a->conn, err);
	if (r)
		close(fd);
	return r;
}

int ask_open(const char *socket, struct ask **ret, struct error *err)
{
	struct ask *a = calloc(1, sizeof(*a));
	int r;

	if (a)
		a->patience_s = ANSWER_S;
	r = a ? connect_to(a, socket, err) : error_set(err, -ENOMEM, "out of memory");

	if (r) {
		ask_close(a);
		return r;
	}
	*ret = a;
	return 0;
}

void ask_close(struct ask *a)
{
	if (!a)
		return;
	conn_destroy(a->conn);
	json_decref(a->answer);
	loop_destroy(a->loop);
	free(a);
}

void ask_release(struct ask *a, struct loop **loop, struct conn **conn)
{
	loop_remove(&a->patience);
	*loop = take_ptr(a->loop);
	*conn = take_ptr(a->conn);
	ask_close(a);
}

/* Of the answer that has come. */
static int take(struct ask *a, json_t **ret, struct error *err)
{
	int code = (int)json_integer_value(json_object_get(a->answer, "errno"));
	const char *reason = json_string_value(json_object_get(a->answer, "error"));

	if (ret)
		*ret = json_incref(code || json_object_get(a->answer, "ok")
					   ? a->answer
					   : json_object_get(a->answer, "value"));
	return code ? error_set(err, code > 0 ? -code : -EPROTO, "%s", reason ? reason : "?") : 0;
}

int ask(struct ask *a, json_t *request, json_t **ret, struct error *err)
{
	int r;

	if (ret)
		*ret = NULL;
	if (!a->conn) {
		*err = a->why;
		return a->code;
	}
	a->done = false;
	json_decref(take_ptr(a->answer));
	a->awaited = ++a->id;
	json_object_set_new(request, "id", json_integer(a->id));
	r = conn_send(a->conn, request, err);
	if (r)
		return r;
	wait_for(a);
	/* Whoever answers may end at once. */
	if (a->answer)
		return take(a, ret, err);
	*err = a->why;
	return a->code;
}

int ask_socket(char **ret, struct error *err)
{
	const char *run = getenv("WISP_RUN");

	if (geteuid() == 0 || (run && *run) || access(ROOTS_SOCKET, F_OK))
		return paths_run("node", "socket", ret, err);
	*ret = strdup(ROOTS_SOCKET);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}
