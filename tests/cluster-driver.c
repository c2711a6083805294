/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks all nodes of a cluster as its coordinator does (src/job/nodes.h), and says how long each
 * answer took, for bench/cluster-scale. It joins NODES (a name a line, that of SOCKET's daemon
 * first), then does what standard input says, one JSON object a line:
 *
 *     cluster-driver SOCKET NODES SESSION
 *     {"ask": REQUEST}                    of all at once
 *     {"ask": REQUEST, "each": true}      a request of its own for each node, 64 at once
 *     {..., "event": NAME, "count": N}    and waits for so many events of that name
 *
 * Each is answered by a line {"seconds", "ok": nodes, "failed": nodes, "why": of the first,
 * "events_s"}, before all others the join: how
 * long until all nodes were there. The end of the input ends it.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "job/nodes.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define AT_ONCE 64u /* as src/job/each.c has it */
#define ASK_MS 120000u
#define LINE_ROOM (1u << 20)

struct driver {
	struct loop *loop;
	struct nodes *nodes;
	struct loop_source *input;
	uint32_t n;
	bool joined;
	struct nodeset there; /* who is reached, until all were */
	/* The line that is being done. */
	json_t *line;
	uint64_t begun, answered, heard;
	uint32_t next, waits;
	json_int_t events;
	uint32_t ok, failed;
	struct error why;
	char *text; /* what was read */
	size_t used;
};

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "cluster-driver: %s\n", what);
	exit(1);
}

static double seconds(uint64_t from, uint64_t to)
{
	return (double)(to - from) / 1e9;
}

/* -------- answers -------- */

static void begin_line(struct driver *d)
{
	d->begun = d->answered = d->heard = io_now_ns();
	d->next = d->waits = d->ok = d->failed = 0;
	d->events = 0;
	d->why.text[0] = 0;
}

static void say(const struct driver *d)
{
	json_t *m = json_pack("{s:f, s:i, s:i, s:s, s:f}", "seconds",
			      seconds(d->begun, d->answered), "ok", d->ok, "failed", d->failed,
			      "why", d->why.text, "events_s", seconds(d->begun, d->heard));

	if (!m || json_dumpf(m, stdout, JSON_COMPACT) || putchar('\n') == EOF || fflush(stdout))
		die("cannot say what was measured");
	json_decref(m);
}

static void take_answer(struct driver *d, const struct gather *answer)
{
	const json_t *first = json_array_get(answer->errors, 0);

	d->ok += nodeset_count(&answer->ok);
	d->failed += nodeset_count(&answer->failed);
	d->answered = io_now_ns();
	if (answer->code)
		d->why = answer->why;
	else if (first)
		error_set(&d->why, -EIO, "%s", json_string_value(json_object_get(first, "error")));
}

static bool is_heard(const struct driver *d)
{
	return d->failed || d->why.text[0] ||
	       d->events >= json_integer_value(json_object_get(d->line, "count"));
}

static void next_line(struct driver *d);

static void settle(struct driver *d)
{
	if (!d->line || d->waits || !is_heard(d))
		return;
	say(d);
	json_decref(take_ptr(d->line));
	next_line(d);
}

/* -------- asking -------- */

static void on_answer(void *arg, const struct gather *answer);

static void ask(struct driver *d, const char *to)
{
	d->waits++;
	nodes_ask(d->nodes, json_copy(json_object_get(d->line, "ask")), to, ASK_MS, on_answer, d);
}

static void ask_each(struct driver *d)
{
	while (d->waits < AT_ONCE && d->next < d->n) {
		char to[16];

		snprintf(to, sizeof(to), "%u", d->next++);
		ask(d, to);
	}
}

static void on_answer(void *arg, const struct gather *answer)
{
	struct driver *d = arg;

	d->waits--;
	take_answer(d, answer);
	if (json_is_true(json_object_get(d->line, "each")))
		ask_each(d);
	settle(d);
}

/* The join is done when all are there, those that were given up at first as well. */
static void settle_join(struct driver *d)
{
	if (d->joined || nodeset_count(&d->there) < d->n)
		return;
	d->joined = true;
	d->ok = d->n;
	d->answered = d->heard = io_now_ns();
	say(d);
	next_line(d);
}

static void on_up(void *arg, const struct gather *answer)
{
	struct driver *d = arg;

	if (nodeset_merge(&d->there, &answer->ok))
		die("out of memory");
	settle_join(d);
}

static void on_change(struct driver *d, const json_t *event, bool back)
{
	const char *text = json_string_value(json_object_get(event, "nodes"));
	struct nodeset set = {0};
	struct error err;

	if (!text || nodeset_parse(text, &set, &err) ||
	    (back ? nodeset_merge : nodeset_subtract)(&d->there, &set))
		die("an event that makes no sense came");
	nodeset_done(&set);
	settle_join(d);
}

static void on_event(void *arg, const json_t *event)
{
	struct driver *d = arg;
	const char *name = json_string_value(json_object_get(event, "event"));
	const char *wanted = json_string_value(json_object_get(d->line, "event"));

	if (name && (!strcmp(name, "node-lost") || !strcmp(name, "node-back")))
		on_change(d, event, !strcmp(name, "node-back"));
	if (!name || !wanted || strcmp(name, wanted))
		return;
	d->events++;
	d->heard = io_now_ns();
	settle(d);
}

static void on_down(void *arg, const char *reason)
{
	die(reason);
}

/* -------- what is to be done -------- */

static void do_line(struct driver *d, const char *text)
{
	json_error_t why;

	d->line = json_loads(text, 0, &why);
	if (!json_is_object(json_object_get(d->line, "ask")))
		die("a line that asks for nothing");
	begin_line(d);
	if (json_is_true(json_object_get(d->line, "each")))
		ask_each(d);
	else
		ask(d, NULL);
}

/* One after the other. */
static void next_line(struct driver *d)
{
	char *end = memchr(d->text, '\n', d->used);
	size_t n = end ? (size_t)(end - d->text) + 1 : 0;
	CLEANUP_FREE char *text = end ? strndup(d->text, n - 1) : NULL;

	if (!text)
		return;
	memmove(d->text, d->text + n, d->used - n);
	d->used -= n;
	do_line(d, text);
}

static void on_input(void *arg, uint32_t events)
{
	struct driver *d = arg;
	ssize_t n = read(STDIN_FILENO, d->text + d->used, LINE_ROOM - d->used);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		loop_stop(d->loop);
		return;
	}
	d->used += (size_t)n;
	if (d->joined && !d->line)
		next_line(d);
}

/* -------- its life -------- */

static json_t *read_names(const char *path)
{
	CLEANUP_FREE char *text = NULL;
	json_t *names = json_array();
	char *at, *name;
	struct error err;

	if (io_read_file(path, LINE_ROOM, &text, &err) < 0)
		die(err.text);
	for (at = text; (name = strsep(&at, "\n"));)
		if (*name)
			json_array_append_new(names, json_string(name));
	return names;
}

int main(int argc, char **argv)
{
	static const struct nodes_ops ops = {on_up, on_down, on_event};
	struct driver d = {.text = malloc(LINE_ROOM)};
	struct nodes_params params = {.ops = &ops, .arg = &d};
	struct error err;

	if (argc != 4)
		die("usage: cluster-driver SOCKET NODES SESSION");
	signal(SIGPIPE, SIG_IGN);
	params.socket = argv[1];
	params.session = argv[3];
	params.names = read_names(argv[2]);
	d.n = (uint32_t)json_array_size(params.names);
	if (!d.text || loop_create(&d.loop))
		die("out of memory");
	params.loop = d.loop;
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	begin_line(&d);
	if (loop_add_fd(d.loop, STDIN_FILENO, EPOLLIN, on_input, &d, &d.input) ||
	    nodes_create(&params, &d.nodes, &err))
		die("cannot set up the event loop");
	loop_run(d.loop);
	nodes_destroy(d.nodes);
	loop_destroy(d.loop);
	json_decref(params.names);
	json_decref(d.line);
	nodeset_done(&d.there);
	free(d.text);
	return 0;
}
