/* SPDX-License-Identifier: Apache-2.0 */
/* What wisp run and wisp cluster attach are: a terminal of a cluster. */

#include "cli/job-terminal.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel/conn.h"
#include "job/dial.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define AGAIN_NS (3ull * 1000000000) /* a second ^C within this ends the cluster */
#define PIECE 32768u

struct view {
	const struct job_terminal *t;
	struct loop *loop;
	struct conn *conn;
	struct loop_source *input;
	uint32_t in, out[2]; /* streams; in 0: there is none, or its end was said */
	char piece[PIECE];   /* of input that there was no room for */
	size_t npiece;
	bool passing;
	bool file;	       /* input is one: it can always be read */
	json_int_t id, attach; /* of requests */
	uint64_t interrupted;  /* when ^C came last */
	bool inside[2];	       /* a line of output */
	bool counting;	       /* a line of progress, which the next one replaces */
	bool explained;	       /* why it fails was told */
	bool over;
	int code, r;
	struct error *err;
};

static void finish(struct view *v, int r, int code)
{
	if (!v->over) {
		v->r = r;
		v->code = code;
	}
	v->over = true;
	loop_stop(v->loop);
}

static json_int_t ask(struct view *v, json_t *request)
{
	struct error err;

	json_object_set_new(request, "id", json_integer(++v->id));
	if (v->conn)
		conn_send(v->conn, request, &err);
	json_decref(request);
	return v->id;
}

/* -------- input -------- */

static void end_input(struct view *v)
{
	if (v->in && v->conn)
		conn_end(v->conn, v->in);
	v->in = 0;
	loop_remove(&v->input);
}

/* Input that has no room waits for on_sent(), which may come before conn_write() returns. */
static bool pass_piece(struct view *v)
{
	size_t n = v->npiece;

	v->npiece = 0;
	if (!n || !conn_write(v->conn, v->in, v->piece, n))
		return true;
	v->npiece = n;
	if (v->input)
		loop_modify_fd(v->input, 0);
	return false;
}

static void pass_input(struct view *v)
{
	ssize_t n;

	if (v->passing)
		return;
	v->passing = true;
	while (v->in && pass_piece(v)) {
		if (v->input)
			loop_modify_fd(v->input, EPOLLIN);
		n = read(STDIN_FILENO, v->piece, sizeof(v->piece));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0)
			end_input(v);
		else
			v->npiece = (size_t)n;
		if (!v->file) {
			pass_piece(v);
			break;
		}
	}
	v->passing = false;
}

static void on_input(void *arg, uint32_t events)
{
	pass_input(arg);
}

static void begin_input(struct view *v)
{
	int r = v->in ? loop_add_fd(v->loop, STDIN_FILENO, EPOLLIN, on_input, v, &v->input) : 0;

	v->file = r == -EPERM;
	if (v->file)
		pass_input(v);
	else if (r)
		end_input(v);
}

/* -------- output -------- */

static int write_labelled(struct view *v, unsigned i, const char *data, size_t n)
{
	int fd = i ? STDERR_FILENO : STDOUT_FILENO, r = 0;

	while (!r && n) {
		const char *end = memchr(data, '\n', n);
		size_t line = end ? (size_t)(end - data) + 1 : n;

		if (!v->inside[i]) {
			r = io_write_full(fd, v->t->label, strlen(v->t->label));
			if (!r)
				r = io_write_full(fd, ": ", 2);
		}
		if (!r)
			r = io_write_full(fd, data, line);
		v->inside[i] = !end;
		data += line;
		n -= line;
	}
	return r;
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct view *v = arg;
	unsigned i = stream == v->out[1];
	int r;

	if (!n || (stream != v->out[0] && stream != v->out[1]))
		return;
	r = v->t->label ? write_labelled(v, i, (const char *)data, n)
			: io_write_full(i ? STDERR_FILENO : STDOUT_FILENO, data, n);
	/* Who reads our output has gone: as a program that writes to a pipe ends. */
	if (r)
		finish(v, 0, 128 + SIGPIPE);
	else
		conn_grant(v->conn, stream, n);
}

/* -------- events -------- */

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/* For people who look on. */
static void show_progress(struct view *v, const json_t *event)
{
	const char *unit = text(event, "unit");

	if (v->t->quiet || v->t->json || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r\033[K%s: %-8s %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " %s",
		v->t->name, text(event, "stage"),
		json_integer_value(json_object_get(event, "done")),
		json_integer_value(json_object_get(event, "of")), *unit ? unit : "VMs");
	v->counting = true;
}

static void end_progress(struct view *v)
{
	if (v->counting)
		fprintf(stderr, "\r\033[K");
	v->counting = false;
}

/* At once when a stage fails, or with the end. */
static void show_why(struct view *v, const char *why)
{
	if (*why && !v->t->json && !v->explained)
		fprintf(stderr, "%s: %s\n", v->t->name, why);
	v->explained |= *why;
}

static void show_stage(struct view *v, const json_t *event)
{
	json_int_t ms = json_integer_value(json_object_get(event, "ms"));
	const char *stage = text(event, "stage"), *state = text(event, "state");

	if (v->t->until_run && !strcmp(stage, "run") && !strcmp(state, "begins"))
		finish(v, 0, 0);
	if (!v->t->quiet && !v->t->json && strcmp(state, "begins"))
		fprintf(stderr,
			"%s: %-8s %s%" JSON_INTEGER_FORMAT ".%03" JSON_INTEGER_FORMAT " s\n",
			v->t->name, stage, strcmp(state, "done") ? "failed after " : "", ms / 1000,
			ms % 1000);
	show_why(v, text(event, "why"));
}

static void show_end(struct view *v, const json_t *event)
{
	json_int_t code = json_integer_value(json_object_get(event, "code"));

	show_why(v, text(event, "why"));
	finish(v, 0, code >= 0 && code < 256 ? (int)code : EXIT_FAILURE);
}

static void show_json(const json_t *event)
{
	json_dumpf(event, stderr, JSON_COMPACT);
	fputc('\n', stderr);
}

static void on_event(struct view *v, const json_t *event)
{
	const char *what = text(event, "event");

	if (v->t->json)
		show_json(event);
	if (!strcmp(what, "progress")) {
		show_progress(v, event);
		return;
	}
	end_progress(v);
	if (!strcmp(what, "stage")) {
		show_stage(v, event);
	} else if (!strcmp(what, "ended")) {
		show_end(v, event);
	} else if (!strcmp(what, "note") && !v->t->json) {
		fprintf(stderr, "%s: %s\n", v->t->name, text(event, "text"));
	} else if (!strcmp(what, "console") && !v->t->json) {
		fprintf(stderr, "The console of %s ends:\n%s\n", text(event, "vm"),
			text(event, "text"));
	} else if (!strcmp(what, "detached") && v->t->hold) {
		if (!v->t->json)
			fprintf(stderr, "%s: detached; wisp cluster attach %s comes back\n",
				v->t->name, v->t->name);
		finish(v, 0, 0);
	}
}

static void on_message(void *arg, json_t *message)
{
	struct view *v = arg;
	json_int_t code = json_integer_value(json_object_get(message, "errno"));

	if (json_object_get(message, "event")) {
		on_event(v, message);
	} else if (json_integer_value(json_object_get(message, "re")) == v->attach) {
		if (code)
			finish(v, error_set(v->err, -(int)code, "%s", text(message, "error")), 0);
		else
			begin_input(v);
	}
}

/* Only what waited is due; a terminal is not read before it has something. */
static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct view *v = arg;

	if (v->npiece || v->file)
		pass_input(v);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct view *v = arg;

	conn_destroy(take_ptr(v->conn));
	finish(v,
	       error_set(
		       v->err, code ? code : -EPIPE,
		       "the coordinator of cluster %s has died (its log: %.*s/log); its nodes end "
		       "what they have of it",
		       v->t->name, (int)(strrchr(v->t->socket, '/') - v->t->socket), v->t->socket),
	       0);
}

static const struct conn_ops conn_ops = {on_message, on_data, on_sent, on_closed};

/* -------- signals -------- */

static void end_cluster(struct view *v, int signo)
{
	end_progress(v);
	if (!v->t->json)
		fprintf(stderr, "%s: ending the cluster\n", v->t->name);
	ask(v, json_pack("{s:s, s:i}", "op", "stop", "code", 128 + signo));
}

/* The first ^C is the program's; another one soon after ends the cluster. */
static void on_interrupt(struct view *v)
{
	uint64_t now = io_now_ns();

	if (v->interrupted && now - v->interrupted < AGAIN_NS) {
		end_cluster(v, SIGINT);
	} else {
		ask(v, json_pack("{s:s, s:i}", "op", "signal", "signal", SIGINT));
	}
	v->interrupted = now;
}

static void on_signal(void *arg, int signo)
{
	struct view *v = arg;

	if (v->t->until_run && (signo == SIGINT || signo == SIGTERM))
		end_cluster(v, signo); /* its name has not been told yet */
	else if (!v->t->hold && signo != SIGUSR1 && signo != SIGUSR2)
		finish(v, 0, 128 + signo); /* who only looks, leaves */
	else if (signo == SIGINT)
		on_interrupt(v);
	else if (signo == SIGTERM || signo == SIGHUP)
		ask(v, json_pack("{s:s, s:i}", "op", "stop", "code", 128 + signo));
	else
		ask(v, json_pack("{s:s, s:i}", "op", "signal", "signal", signo));
}

/* -------- life -------- */

static void attach(struct view *v)
{
	uint32_t in = conn_next_stream(v->conn, 0);
	struct error err;
	json_t *request;

	v->in = v->t->input ? in : 0;
	v->out[0] = in + 2;
	v->out[1] = in + 4;
	if (v->in)
		conn_open(v->conn, v->in, &err);
	conn_open(v->conn, v->out[0], &err);
	conn_open(v->conn, v->out[1], &err);
	request = json_pack("{s:s, s:b, s:I, s:I, s:I, s:i, s:i}", "op", "attach", "hold",
			    v->t->hold, "stdin", (json_int_t)v->in, "stdout", (json_int_t)v->out[0],
			    "stderr", (json_int_t)v->out[1], "stdout-from", v->t->past ? 0 : -1,
			    "stderr-from", v->t->past ? 0 : -1);
	v->attach = ask(v, request);
}

static void on_dialled(void *arg, int code, const char *reason, struct conn *conn)
{
	struct view *v = arg;

	if (code) {
		finish(v, error_set(v->err, code, "cluster %s: %s", v->t->name, reason), 0);
		return;
	}
	v->conn = conn;
	attach(v);
}

static int begin(struct view *v)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	struct loop_source *source;
	struct dial *dial;
	int r = loop_create(&v->loop);

	for (size_t i = 0; !r && i < ARRAY_SIZE(signals); i++)
		r = loop_add_signal(v->loop, signals[i], on_signal, v, &source);
	if (r)
		return error_errno(v->err, r, "cannot set up the event loop");
	signal(SIGPIPE, SIG_IGN);
	return dial_start(v->loop, v->t->socket, &conn_ops, v, on_dialled, v, &dial, v->err);
}

int job_terminal_run(const struct job_terminal *terminal, int *code, struct error *err)
{
	struct view v = {.t = terminal, .err = err};
	int r = begin(&v);

	if (!r)
		r = loop_run(v.loop);
	if (!r)
		r = v.r;
	loop_remove(&v.input);
	conn_destroy(v.conn);
	loop_destroy(v.loop);
	*code = v.code;
	return r;
}
