/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks from the host's side, with an agent that is a service: connections that break at any
 * moment lose nothing of what programs write and read, and double nothing. The agent's program is
 * the argument.
 */

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/client-task.h"
#include "agent/client.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

#define PATIENCE_NS 30000000000ULL

static const char *agent_program; /* from main() */

struct fixture {
	char dir[64], address[96];
	pid_t agent;
	struct error err;
};

/* Somebody who is attached. */
struct far {
	struct fixture *f;
	struct task_client *client;
	int fd;
	char *got[3]; /* stdout and stderr */
	uint64_t size[3], safe[3];
	bool acks, slow;
	unsigned takes; /* counted, for the slow one */
	uint64_t limit; /* of bytes that are taken of stdout */
	const char *input;
	uint64_t input_size, input_at;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char listen[112];
	const char *argv[] = {agent_program, "--listen", listen, NULL};
	struct process process = {.argv = argv, .die_with_parent = true};

	strcpy(f->dir, "/tmp/test-task.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->address, sizeof(f->address), "unix:%s/agent", f->dir);
	snprintf(listen, sizeof(listen), "%s", f->address);
	if (process_start(&process, &f->agent, &f->err) ||
	    client_wait_ready(f->address, 10000, NULL, NULL, &f->err)) {
		print_error("%s\n", f->err.text);
		return -1;
	}
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	int status;

	kill(f->agent, SIGTERM);
	process_wait(f->agent, &status);
	rmdir(f->dir);
	free(f);
	return status;
}

static int dial(struct fixture *f)
{
	int fd = client_connect(f->address, &f->err);

	assert_true(fd >= 0);
	return fd;
}

static int start(struct fixture *f, const char *id, const char *words, bool input)
{
	const char *argv[] = {words, NULL};
	struct client_exec exec = {.argv = argv, .shell = true, .in_fd = input ? 0 : -1};
	int fd = dial(f), r = client_task_start(fd, id, &exec, NULL, &f->err);

	close(fd);
	return r;
}

static int drop(struct fixture *f, const char *id, bool kill)
{
	int fd = dial(f), r = client_task_remove(fd, id, kill, &f->err);

	close(fd);
	return r;
}

/* The entry of a task; the caller releases it. */
static json_t *entry(struct fixture *f, const char *id)
{
	json_t *list = NULL, *found = NULL, *t;
	int fd = dial(f);
	size_t i;

	assert_int_equal(client_task_list(fd, &list, &f->err), 0);
	close(fd);
	json_array_foreach (list, i, t)
		if (!strcmp(json_string_value(json_object_get(t, "id")), id))
			found = json_incref(t);
	json_decref(list);
	return found;
}

static bool is_ended(struct fixture *f, const char *id)
{
	json_t *t = entry(f, id);
	bool ended = !strcmp(json_string_value(json_object_get(t, "state")), "ended");

	json_decref(t);
	return ended;
}

static uint64_t written(struct fixture *f, const char *id, const char *stream, const char *end)
{
	json_t *t = entry(f, id);
	uint64_t n = (uint64_t)json_integer_value(json_object_get(json_object_get(t, stream), end));

	json_decref(t);
	return n;
}

static ssize_t on_output(void *arg, enum stream_number stream, uint64_t position, const void *data,
			 size_t n)
{
	struct far *far = arg;

	assert_int_equal(position, far->size[stream]);
	if (far->slow && n > 100 && far->takes++ & 1)
		n = far->takes % 100;
	if (position + n > far->limit)
		n = (size_t)(far->limit - position);
	far->got[stream] = realloc(far->got[stream], far->size[stream] + n + 1);
	memcpy(far->got[stream] + far->size[stream], data, n);
	far->size[stream] += n;
	far->got[stream][far->size[stream]] = 0;
	if (far->acks)
		assert_int_equal(task_client_ack(far->client, stream, far->size[stream]), 0);
	return (ssize_t)n;
}

/* The agent may only go back to what was not acknowledged. */
static void on_position(void *arg, enum stream_number stream, uint64_t position)
{
	struct far *far = arg;

	assert_true(position <= far->size[stream]);
	far->size[stream] = position;
}

static const struct task_client_ops ops = {.position = on_position, .output = on_output};

static void far_init(struct far *far, struct fixture *f, const char *id)
{
	*far = (struct far){.f = f, .fd = -1, .acks = true, .limit = UINT64_MAX};
	assert_int_equal(task_client_create(id, &ops, far, &far->client, &f->err), 0);
}

static void far_attach(struct far *far, bool afresh)
{
	if (far->fd >= 0)
		close(far->fd);
	far->fd = dial(far->f);
	assert_int_equal(task_client_attach(far->client, far->fd, afresh, &far->f->err), 0);
}

static void far_done(struct far *far)
{
	task_client_destroy(far->client);
	close(far->fd);
	free(far->got[STREAM_OUT]);
	free(far->got[STREAM_ERR]);
}

static void far_input(struct far *far)
{
	uint64_t room = task_client_room(far->client), left = far->input_size - far->input_at;
	size_t n = (size_t)(room < left ? room : left);

	assert_int_equal(task_client_input(far->client, far->input + far->input_at, n), 0);
	far->input_at += n;
	if (far->input && far->input_at == far->input_size) {
		far->input = NULL;
		assert_int_equal(task_client_input_end(far->client), 0);
	}
}

/* One wait of at most timeout_ms. What task_client_run() says; -ETIME when nothing came. */
static int far_step(struct far *far, int timeout_ms)
{
	struct pollfd p = {.fd = far->fd, .events = (short)task_client_events(far->client)};
	struct error *err = &far->f->err;
	int r;

	if (far->input)
		far_input(far);
	p.events = (short)task_client_events(far->client);
	if (far->slow) {
		r = task_client_resume(far->client, err);
		if (r)
			return r;
		p.events = (short)task_client_events(far->client);
	}
	if (far->slow && !p.events)
		return 0;
	if (poll(&p, 1, timeout_ms) < 1)
		return -ETIME;
	return task_client_run(far->client, (uint32_t)p.revents, err);
}

/* To the end: 1, or the error. */
static int far_run(struct far *far)
{
	uint64_t end = io_now_ns() + PATIENCE_NS;
	int r = 0;

	while (!r && io_now_ns() < end)
		r = far_step(far, 30000);
	return r;
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	struct far far;

	assert_int_equal(start(f, "a", "echo out; echo err >&2; cat; exit 7", false), 0);
	assert_int_equal(start(f, "a", "true", false), -EEXIST);
	assert_int_equal(start(f, "b/", "true", false), -EINVAL);
	far_init(&far, f, "a");
	far_attach(&far, true);
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(task_client_code(far.client), 7);
	assert_string_equal(far.got[STREAM_OUT], "out\n");
	assert_string_equal(far.got[STREAM_ERR], "err\n");
	assert_true(is_ended(f, "a"));
	/* The end is told to whoever comes. */
	far_attach(&far, false);
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(task_client_code(far.client), 7);
	assert_int_equal(drop(f, "a", false), 0);
	assert_int_equal(drop(f, "a", false), -ENOENT);
	far_attach(&far, false);
	assert_int_equal(far_run(&far), -ENOENT);
	far_done(&far);
}

static void test_cannot_run(void **state)
{
	const char *argv[] = {"/nosuch/program", NULL};
	struct client_exec exec = {.argv = argv, .in_fd = -1};
	struct fixture *f = *state;
	struct far far;
	int fd = dial(f);

	assert_int_equal(client_task_start(fd, "a", &exec, NULL, &f->err), -ENOENT);
	assert_non_null(strstr(f->err.text, "cannot run /nosuch/program"));
	close(fd);
	assert_null(entry(f, "a"));
	/* By readiness, the one and the other. */
	far_init(&far, f, "a");
	far.fd = dial(f);
	assert_int_equal(task_client_start(far.client, far.fd, &exec, &f->err), 0);
	assert_int_equal(far_run(&far), -ENOENT);
	close(far.fd);
	argv[0] = "/bin/echo";
	far.fd = dial(f);
	assert_int_equal(task_client_start(far.client, far.fd, &exec, &f->err), 0);
	assert_int_equal(far_run(&far), 1);
	close(far.fd);
	far.fd = dial(f);
	assert_int_equal(task_client_start(far.client, far.fd, &exec, &f->err), 0);
	assert_int_equal(far_run(&far), -EEXIST);
	far_attach(&far, false);
	assert_int_equal(far_run(&far), 1);
	assert_string_equal(far.got[STREAM_OUT], "\n");
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
}

static char *numbers(unsigned n)
{
	char *text = malloc(n * 8 + 1), *p = text;

	if (!text)
		abort();
	for (unsigned i = 1; i <= n; i++)
		p += sprintf(p, "%u\n", i);
	return text;
}

/* Cut at any moment, hundreds of times; some of what came is acknowledged. */
static void broken(struct fixture *f, bool slow)
{
	char *wanted = numbers(400000);
	struct far far;
	unsigned cuts = 0;
	int r;

	assert_int_equal(start(f, "a", "seq 400000 & seq 400000 >&2; wait", false), 0);
	far_init(&far, f, "a");
	far.slow = slow;
	do {
		int steps = rand() % 20;

		cuts++;
		far.acks = cuts & 1;
		far_attach(&far, cuts == 1);
		do
			r = far_step(&far, 30000);
		while (!r && --steps > 0);
	} while (!r);
	print_message("# cut %u times\n", cuts - 1);
	assert_int_equal(r, 1);
	assert_true(cuts > 5);
	assert_int_equal(far.size[STREAM_OUT], strlen(wanted));
	assert_string_equal(far.got[STREAM_OUT], wanted);
	assert_string_equal(far.got[STREAM_ERR], wanted);
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
	free(wanted);
}

static void test_broken(void **state)
{
	broken(*state, false);
}

static void test_broken_slow(void **state)
{
	broken(*state, true);
}

/* A client that starts anew, as after a restore, has all that was not acknowledged again. */
static void test_afresh(void **state)
{
	struct fixture *f = *state;
	uint64_t end = io_now_ns() + PATIENCE_NS;
	char *wanted = numbers(30000);
	struct far far;

	assert_int_equal(start(f, "a", "seq 30000; read x", true), 0);
	far_init(&far, f, "a");
	far.limit = 50000;
	far_attach(&far, true);
	while (far.size[STREAM_OUT] < far.limit)
		assert_int_equal(far_step(&far, 30000), 0);
	while (task_client_events(far.client) & EPOLLOUT)
		assert_int_equal(far_step(&far, 30000), 0);
	/* Before the connection breaks: that may cost acknowledgements. */
	while (written(f, "a", "stdout", "from") < 50000 && io_now_ns() < end)
		usleep(10000);
	far.limit = UINT64_MAX;
	far.acks = false;
	for (int i = 0; i < 2; i++) {
		far_attach(&far, true);
		while (far.size[STREAM_OUT] < strlen(wanted) || !task_client_room(far.client))
			assert_int_equal(far_step(&far, 30000), 0);
		assert_string_equal(far.got[STREAM_OUT], wanted);
	}
	far.input = "\n";
	far.input_size = 1;
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(written(f, "a", "stdout", "from"), 50000);
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
	free(wanted);
}

/* Nobody there: it is stopped by its full window, and goes on. Nobody's going sends SIGHUP. */
static void test_nobody(void **state)
{
	struct fixture *f = *state;
	struct far far;
	uint64_t window, end = io_now_ns() + PATIENCE_NS;
	json_t *t;

	assert_int_equal(start(f, "a", "head -c 20000000 /dev/zero; echo; echo end", false), 0);
	t = entry(f, "a");
	window = (uint64_t)json_integer_value(json_object_get(t, "window"));
	json_decref(t);
	assert_in_range(window, 65536, 8 << 20);
	while (written(f, "a", "stdout", "to") < window && io_now_ns() < end)
		usleep(10000);
	usleep(100000);
	assert_int_equal(written(f, "a", "stdout", "to"), window);
	assert_false(is_ended(f, "a"));
	far_init(&far, f, "a");
	/* Without acknowledgements it has the window, and no more. */
	far.acks = false;
	far_attach(&far, true);
	while (far_step(&far, 200) == 0)
		continue;
	assert_int_equal(far.size[STREAM_OUT], window);
	far.acks = true;
	far_attach(&far, true);
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(far.size[STREAM_OUT], 20000005);
	assert_string_equal(far.got[STREAM_OUT] + 20000000, "\nend\n");
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
}

static void test_latest(void **state)
{
	struct fixture *f = *state;
	struct far far, second;

	assert_int_equal(start(f, "a", "echo 1; read x; echo 2", true), 0);
	far_init(&far, f, "a");
	far_attach(&far, true);
	while (far.size[STREAM_OUT] < 2)
		assert_int_equal(far_step(&far, 30000), 0);
	far_init(&second, f, "a");
	far_attach(&second, true);
	while (!task_client_attached(second.client))
		assert_int_equal(far_step(&second, 30000), 0);
	assert_int_equal(far_run(&far), -ECANCELED);
	assert_non_null(strstr(f->err.text, "another client"));
	second.input = "\n";
	second.input_size = 1;
	assert_int_equal(far_run(&second), 1);
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
	far_done(&second);
}

/* What a program reads is what was given, wherever the connection broke. */
static void test_input(void **state)
{
	struct fixture *f = *state;
	char *wanted = numbers(300000);
	struct far far;
	unsigned cuts = 0;
	int r;

	assert_int_equal(start(f, "a", "cat; exit 4", true), 0);
	far_init(&far, f, "a");
	far.input = wanted;
	far.input_size = strlen(wanted);
	do {
		int steps = rand() % 4;

		far_attach(&far, !cuts++);
		do
			r = far_step(&far, 30000);
		while (!r && --steps > 0);
	} while (!r);
	print_message("# cut %u times\n", cuts - 1);
	assert_int_equal(r, 1);
	assert_true(cuts > 2);
	assert_int_equal(task_client_code(far.client), 4);
	assert_string_equal(far.got[STREAM_OUT], wanted);
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
	free(wanted);
}

static void test_ends(void **state)
{
	struct fixture *f = *state;
	struct far far;
	int fd;

	assert_int_equal(start(f, "a", "sleep 1000", false), 0);
	assert_int_equal(drop(f, "a", false), -EBUSY);
	far_init(&far, f, "a");
	assert_int_equal(task_client_signal(far.client, SIGTERM), -ENOTCONN);
	far_attach(&far, true);
	while (!task_client_attached(far.client))
		assert_int_equal(far_step(&far, 30000), 0);
	assert_int_equal(task_client_signal(far.client, SIGTERM), 0);
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(task_client_code(far.client), 128 + SIGTERM);
	assert_int_equal(drop(f, "a", false), 0);
	/* Removed while it runs. */
	assert_int_equal(start(f, "a", "sleep 1000", false), 0);
	far_attach(&far, true);
	while (!task_client_attached(far.client))
		assert_int_equal(far_step(&far, 30000), 0);
	assert_int_equal(drop(f, "a", true), 0);
	assert_int_equal(far_run(&far), -ECANCELED);
	assert_null(entry(f, "a"));
	far_done(&far);
	/* From beside. */
	assert_int_equal(start(f, "b", "sleep 1000", false), 0);
	fd = dial(f);
	assert_int_equal(client_task_signal(fd, "b", SIGKILL, &f->err), 0);
	close(fd);
	far_init(&far, f, "b");
	far_attach(&far, true);
	assert_int_equal(far_run(&far), 1);
	assert_int_equal(task_client_code(far.client), 128 + SIGKILL);
	fd = dial(f);
	assert_int_equal(client_task_signal(fd, "b", SIGKILL, &f->err), -ESRCH);
	close(fd);
	assert_int_equal(drop(f, "b", false), 0);
	far_done(&far);
}

static void test_terminal(void **state)
{
	const char *argv[] = {"tty >/dev/null && stty size; read x; stty size", NULL};
	struct client_exec exec = {.argv = argv, .shell = true, .terminal = true, .out_fd = -1};
	struct fixture *f = *state;
	struct far far;
	int fd = dial(f);

	assert_int_equal(client_task_start(fd, "a", &exec, NULL, &f->err), 0);
	close(fd);
	far_init(&far, f, "a");
	far_attach(&far, true);
	while (far.size[STREAM_OUT] < 7)
		assert_int_equal(far_step(&far, 30000), 0);
	assert_int_equal(task_client_winsize(far.client, 33, 77), 0);
	assert_int_equal(far_step(&far, 30000), 0);
	far.input = "\n";
	far.input_size = 1;
	assert_int_equal(far_run(&far), 1);
	assert_non_null(strstr(far.got[STREAM_OUT], "24 80"));
	assert_non_null(strstr(far.got[STREAM_OUT], "33 77"));
	assert_int_equal(drop(f, "a", false), 0);
	far_done(&far);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),   cmocka_unit_test(test_cannot_run),
		cmocka_unit_test(test_broken), cmocka_unit_test(test_broken_slow),
		cmocka_unit_test(test_afresh), cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_latest), cmocka_unit_test(test_input),
		cmocka_unit_test(test_ends),   cmocka_unit_test(test_terminal),
	};

	agent_program = argc > 1 ? argv[1] : "wisp-agent";
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
