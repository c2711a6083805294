/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams to what VMs have, through one daemon and through two: data, ends, who does not read, and
 * whoever dies. In place of a cluster's part there is one that does what "what" says.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "channel/conn.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/ask.h"
#include "node/daemon.h"
#include "node/daemon-splice.h"
#include "node/test/made.h"
#include "node/topology.h"
#include "node/tunnel.h"

#define KEY "thirty-two bytes are what it has"
#define STREAMS 4096u
#define SOURCE (64u << 20)

/* -------- the part -------- */

enum what { NONE, ECHO, SINK, SOURCES, DROPS };

struct part {
	struct daemon *d;
	struct conn *ours, *theirs; /* of the daemon, and of the part */
	struct {
		part_fn *fn;
		void *arg;
		enum what what;
		bool ended;
	} stream[STREAMS];
	uint64_t sunk, sources; /* bytes */
	unsigned resets;
};

static struct part part;

static void ours_message(void *arg, json_t *message)
{
	json_int_t id = json_integer_value(json_object_get(message, "re"));
	int code = -(int)json_integer_value(json_object_get(message, "errno"));

	if (code)
		conn_end(part.ours, (uint32_t)id);
	part.stream[id].fn(part.stream[id].arg, code, "the part refuses", message);
}

static void ours_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	splice_data(part.d, part.ours, stream, data, n);
}

static void ours_sent(void *arg, uint32_t stream, size_t n)
{
	splice_sent(part.d, part.ours, stream, n);
}

static void ours_closed(void *arg, int code, const char *reason)
{
	streams_gone(part.d, part.ours);
	conn_destroy(take_ptr(part.ours));
}

static const struct conn_ops ours_ops = {ours_message, ours_data, ours_sent, ours_closed};

static void pour(uint32_t stream)
{
	static const uint8_t zeroes[4096];

	while (part.sources < SOURCE && !conn_write(part.theirs, stream, zeroes, sizeof(zeroes)))
		part.sources += sizeof(zeroes);
	if (part.sources >= SOURCE)
		conn_end(part.theirs, stream);
}

static void answer(json_int_t id, int code)
{
	json_t *m = json_pack("{s:I, s:b}", "re", id, "done", 1);

	if (code)
		json_object_set_new(m, "errno", json_integer(code));
	conn_send(part.theirs, m, NULL);
	json_decref(m);
}

static void say_count(uint32_t stream)
{
	char text[80];
	int n = snprintf(text, sizeof(text), "%llu %llu %u", (unsigned long long)part.sunk,
			 (unsigned long long)part.sources, part.resets);

	conn_write(part.theirs, stream, text, (size_t)n);
	conn_end(part.theirs, stream);
}

static void theirs_message(void *arg, json_t *message)
{
	uint32_t stream = (uint32_t)json_integer_value(json_object_get(message, "stream"));
	const char *what = json_string_value(json_object_get(message, "what"));

	if (json_object_get(message, "event")) {
		part.resets++;
		conn_end(part.theirs, stream);
		return;
	}
	conn_open(part.theirs, stream, NULL);
	if (!strcmp(what, "hang"))
		return;
	if (!strcmp(what, "refuse")) {
		answer(stream, ENOENT);
		conn_end(part.theirs, stream);
		return;
	}
	part.stream[stream].what = !strcmp(what, "echo")      ? ECHO
				   : !strcmp(what, "sources") ? SOURCES
				   : !strcmp(what, "drops")   ? DROPS
							      : SINK;
	answer(stream, 0);
	if (!strcmp(what, "sources"))
		pour(stream);
	else if (!strcmp(what, "count"))
		say_count(stream);
	else if (!strcmp(what, "sink"))
		conn_end(part.theirs, stream);
}

static void theirs_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	if (part.stream[stream].what == DROPS)
		conn_fail(part.theirs, -EIO, "the part dies");
	else if (part.stream[stream].what != ECHO)
		part.sunk += n;
	else if (!n)
		conn_end(part.theirs, stream);
	else
		conn_write(part.theirs, stream, data, n);
	if (part.stream[stream].what != ECHO)
		conn_grant(part.theirs, stream, n);
}

static void theirs_sent(void *arg, uint32_t stream, size_t n)
{
	if (part.stream[stream].what == ECHO)
		conn_grant(part.theirs, stream, n);
	else if (part.stream[stream].what == SOURCES)
		pour(stream);
}

static void theirs_closed(void *arg, int code, const char *reason)
{
	conn_destroy(take_ptr(part.theirs));
}

static const struct conn_ops theirs_ops = {theirs_message, theirs_data, theirs_sent, theirs_closed};

static void part_begin(struct daemon *d)
{
	struct conn_params p = {.loop = d->p.loop, .ops = &ours_ops};
	int s[2];

	part.d = d;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s))
		_exit(1);
	p.in = p.out = s[0];
	conn_create(&p, &part.ours, NULL);
	p.ops = &theirs_ops;
	p.in = p.out = s[1];
	conn_create(&p, &part.theirs, NULL);
}

static int connect_part(struct daemon *d, const struct asker *who, const json_t *request,
			part_fn *fn, void *arg, struct conn **conn, uint32_t *stream,
			struct error *err)
{
	json_t *copy = json_copy((json_t *)request);

	if (!part.ours || !part.theirs)
		part_begin(d);
	*conn = part.ours;
	*stream = conn_next_stream(part.ours, 0);
	conn_open(part.ours, *stream, NULL);
	part.stream[*stream].fn = fn;
	part.stream[*stream].arg = arg;
	json_object_set_new(copy, "id", json_integer(*stream));
	json_object_set_new(copy, "stream", json_integer(*stream));
	conn_send(part.ours, copy, NULL);
	json_decref(copy);
	return 0;
}

/* -------- the daemons' processes -------- */

struct node {
	const char *name;
	char *socket, *database, *address; /* as others call it */
	pid_t pid;
};

static void tell_port(const struct daemon *d, int ready)
{
	struct sockaddr_in at = {0};
	socklen_t n = sizeof(at);
	uint16_t port;

	getsockname(d->remote.fd, (struct sockaddr *)&at, &n);
	port = ntohs(at.sin_port);
	io_write_full(ready, &port, sizeof(port));
}

static void serve(const struct node *n, int ready)
{
	struct topology_source source = {.synthetic = "pack:1 numa:1 core:4 pu:2"};
	struct daemon_params p = {.socket = n->socket,
				  .database = n->database,
				  .name = n->name,
				  .labels = json_array(),
				  .admit = {.keys = "/nowhere"},
				  .root = "/nowhere",
				  .cgroups = "/nowhere",
				  .operators = (gid_t)-1,
				  .grace = 1,
				  .listen = "127.0.0.1:0",
				  .key = KEY,
				  .nkey = strlen(KEY)};
	struct daemon *d = NULL;
	struct error err = {""};
	struct log log;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_init(&log, n->name, STDERR_FILENO, LOG_ERROR);
	p.log = &log;
	if (topology_read(&source, &p.topology, &err) || loop_create(&p.loop) ||
	    daemon_create(&p, &d, &err)) {
		fprintf(stderr, "%s\n", err.text);
		_exit(1);
	}
	d->part_connect = connect_part;
	tell_port(d, ready);
	loop_run(p.loop);
	_exit(1);
}

static void node_start(struct node *n, const char *root, const char *name)
{
	uint16_t port = 0;
	int ready[2];

	n->name = name;
	n->socket = io_format("%s/%s.socket", root, name);
	n->database = io_format("%s/%s.db", root, name);
	assert_int_equal(pipe(ready), 0);
	n->pid = fork();
	assert_true(n->pid >= 0);
	if (!n->pid) {
		close(ready[0]);
		serve(n, ready[1]);
	}
	close(ready[1]);
	assert_int_equal(io_read_full(ready[0], &port, sizeof(port)), 0);
	close(ready[0]);
	n->address = io_format("%s@127.0.0.1:%u", name, port);
}

static void node_kill(struct node *n)
{
	if (n->pid > 0) {
		kill(n->pid, SIGKILL);
		waitpid(n->pid, NULL, 0);
	}
	n->pid = 0;
}

struct pair {
	void *root;
	struct node near, far;
};

static int set_up(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	if (made_set_up(&p->root))
		return -1;
	node_start(&p->near, p->root, "near");
	node_start(&p->far, p->root, "far");
	*state = p;
	return 0;
}

static void node_done(struct node *n)
{
	/* Nothing that was done to it ended it. */
	if (n->pid)
		assert_int_equal(waitpid(n->pid, NULL, WNOHANG), 0);
	node_kill(n);
	free(n->socket);
	free(n->database);
	free(n->address);
}

static int tear_down(void **state)
{
	struct pair *p = *state;
	int r;

	node_done(&p->near);
	node_done(&p->far);
	r = made_tear_down(&p->root);
	free(p);
	return r;
}

/* -------- connecting -------- */

static int try_open(const struct pair *p, const char *node, const char *what, int *fd,
		    struct error *err)
{
	json_t *request = json_pack("{s:s, s:s, s:s}", "cluster", "a-1", "vm", "v0", "what", what);
	int r;

	if (node)
		json_object_set_new(request, "node", json_string(node));
	r = tunnel_open(p->near.socket, request, fd, err);
	json_decref(request);
	return r;
}

static int open_to(const struct pair *p, const char *node, const char *what)
{
	struct error err;
	int fd = -1;

	if (try_open(p, node, what, &fd, &err))
		fail_msg("%s", err.text);
	return fd;
}

/* What it says until its end, in at most 20 s. */
static size_t read_all(int fd, char *ret, size_t room)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t have = 0;
	ssize_t n;

	do {
		assert_int_equal(poll(&p, 1, 20000), 1);
		n = read(fd, ret + have, room - have);
		have += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	return have;
}

static void counts(const struct pair *p, const char *node, unsigned long long *sunk,
		   unsigned long long *sources, unsigned *resets)
{
	char text[80] = "";
	int fd = open_to(p, node, "count");

	read_all(fd, text, sizeof(text) - 1);
	assert_int_equal(sscanf(text, "%llu %llu %u", sunk, sources, resets), 3);
	close(fd);
}

/* Until the part has taken so many bytes, and was told so many resets. */
static void until(const struct pair *p, const char *node, unsigned long long bytes, unsigned resets)
{
	unsigned long long sunk = 0, sources;
	unsigned n = 0;

	for (unsigned i = 0; i < 200; i++) {
		counts(p, node, &sunk, &sources, &n);
		if (sunk >= bytes && n >= resets)
			break;
		usleep(50000);
	}
	assert_int_equal(sunk, bytes);
	assert_int_equal(n, resets);
}

static uint8_t byte_of(size_t i)
{
	return (uint8_t)(i * 31 >> 3);
}

/* Writes n bytes and reads them back, as they come. */
static void echo(int fd, size_t n)
{
	size_t out = 0, in = 0;
	uint8_t data[30000];

	while (in < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN | (out < n ? POLLOUT : 0)};

		assert_int_equal(poll(&p, 1, 20000), 1);
		if (p.revents & POLLOUT) {
			size_t some = n - out < sizeof(data) ? n - out : sizeof(data);
			ssize_t done;

			for (size_t i = 0; i < some; i++)
				data[i] = byte_of(out + i);
			done = send(fd, data, some, MSG_DONTWAIT | MSG_NOSIGNAL);
			out += done > 0 ? (size_t)done : 0;
			if (out == n)
				shutdown(fd, SHUT_WR);
		}
		if (p.revents & POLLIN) {
			ssize_t done = read(fd, data, sizeof(data));

			assert_true(done > 0);
			for (ssize_t i = 0; i < done; i++)
				if (data[i] != byte_of(in + (size_t)i))
					fail_msg("byte %zu differs", in + (size_t)i);
			in += (size_t)done;
		}
	}
	assert_int_equal(read(fd, data, sizeof(data)), 0);
}

/* -------- tests -------- */

static void test_echo(void **state)
{
	const struct pair *p = *state;
	const char *where[] = {NULL, "near", p->far.address};

	for (unsigned i = 0; i < 3; i++) {
		int fd = open_to(p, where[i], "echo");

		echo(fd, 8 << 20);
		close(fd);
	}
}

static void test_many(void **state)
{
	const struct pair *p = *state;
	int fd[100];

	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = open_to(p, i % 2 ? p->far.address : NULL, "echo");
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		echo(fd[i], 10000 + i);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
}

static void test_refused(void **state)
{
	const struct pair *p = *state;
	struct error err;
	int fd = -1;

	assert_int_equal(try_open(p, NULL, "refuse", &fd, &err), -ENOENT);
	assert_int_equal(try_open(p, p->far.address, "refuse", &fd, &err), -ENOENT);
	assert_int_equal(try_open(p, "x@127.0.0.1:1", "echo", &fd, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "--listen"));
	assert_int_equal(try_open(p, "-x", "echo", &fd, &err), -EINVAL);
	assert_int_equal(fd, -1);
	/* Nothing of it is left: the streams of the part would be used up. */
	for (unsigned i = 0; i < CONN_STREAMS_MAX + 10; i++)
		assert_int_equal(try_open(p, NULL, "refuse", &fd, &err), -ENOENT);
	fd = open_to(p, NULL, "echo");
	echo(fd, 10);
	close(fd);
}

/* Who writes and goes, loses nothing, even where the other side said its end long before. */
static void test_written(void **state)
{
	const struct pair *p = *state;
	static uint8_t zeroes[3 << 20];
	const char *where[] = {NULL, p->far.address};

	for (unsigned i = 0; i < 2; i++) {
		int fd = open_to(p, where[i], "sink");

		assert_int_equal(io_write_full(fd, zeroes, sizeof(zeroes)), 0);
		close(fd);
		until(p, where[i], sizeof(zeroes), 0);
	}
}

/* Who does not read holds back who writes, and who goes ends it. */
static void test_unread(void **state)
{
	const struct pair *p = *state;
	const char *where[] = {NULL, p->far.address};

	for (unsigned i = 0; i < 2; i++) {
		unsigned long long sunk, sources = 0, before;
		int fd = open_to(p, where[i], "sources");
		unsigned resets;

		do {
			before = sources;
			usleep(200000);
			counts(p, where[i], &sunk, &sources, &resets);
		} while (sources != before);
		assert_in_range(sources, CONN_WINDOW, 8 * CONN_WINDOW);
		close(fd);
		until(p, where[i], 0, 1);
	}
}

static void test_dropped(void **state)
{
	const struct pair *p = *state;
	const char *where[] = {NULL, p->far.address};
	char text[8];

	for (unsigned i = 0; i < 2; i++) {
		int other = open_to(p, where[i], "echo"), fd = open_to(p, where[i], "drops");

		assert_int_equal(io_write_full(fd, "x", 1), 0);
		assert_int_equal(read_all(fd, text, sizeof(text)), 0);
		assert_int_equal(read_all(other, text, sizeof(text)), 0);
		close(fd);
		close(other);
		fd = open_to(p, where[i], "echo");
		echo(fd, 100);
		close(fd);
	}
}

static void test_killed(void **state)
{
	struct pair *p = *state;
	int far = open_to(p, p->far.address, "echo"), near = open_to(p, NULL, "echo");
	struct error err;
	char text[8];
	int fd;

	assert_int_equal(io_write_full(far, "x", 1), 0);
	assert_int_equal(io_read_full(far, text, 1), 0);
	node_kill(&p->far);
	assert_int_equal(read_all(far, text, sizeof(text)), 0);
	close(far);
	echo(near, 1000);
	close(near);
	assert_int_equal(try_open(p, p->far.address, "echo", &fd, &err), -ECONNREFUSED);
}

/* A client that goes while it is connected, by the protocol as it is spoken. */
static void test_client_gone(void **state)
{
	const struct pair *p = *state;
	const char *where[] = {NULL, p->far.address};

	for (unsigned i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (!pid) {
			struct error err;
			int fd;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(try_open(p, where[i % 2], "hang", &fd, &err));
		}
		usleep(20000 + 3000 * i);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		int fd = open_to(p, where[i], "echo");

		echo(fd, 1000);
		close(fd);
	}
}

/* Whoever breaks the rules of streams is told so, and nobody else is harmed. */
static void test_rules(void **state)
{
	const struct pair *p = *state;
	static const char *const bad[] = {"{}", "{\"stream\": 0}", "{\"stream\": -1}",
					  "{\"stream\": \"x\"}", "{\"stream\": 4294967296}"};
	struct error err;
	struct ask *a = NULL;

	assert_int_equal(ask_open(p->near.socket, &a, &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *request = json_loads(bad[i], 0, NULL);

		json_object_set_new(request, "op", json_string("connect"));
		assert_int_equal(ask(a, request, NULL, &err), -EINVAL);
		json_decref(request);
	}
	ask_close(a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_echo),    TEST(test_many),	    TEST(test_refused),
		TEST(test_written), TEST(test_unread),	    TEST(test_dropped),
		TEST(test_killed),  TEST(test_client_gone), TEST(test_rules),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
