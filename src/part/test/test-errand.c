/* SPDX-License-Identifier: Apache-2.0 */
/* Errands: what they say, how they end, and that nothing of them outlives the part. */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/loop.h"
#include "part/errand.h"

struct fixture {
	struct loop *loop;
	struct errands *errands;
	/* Of the last errand. */
	bool ended;
	int code, status, fd;
	char reason[512];
	json_t *value, *said;
};

static void on_said(void *arg, const json_t *message, int fd)
{
	struct fixture *f = arg;

	json_array_append(f->said, (json_t *)message);
	if (fd >= 0)
		f->fd = fd;
}

static void on_done(void *arg, const struct errand_end *end)
{
	struct fixture *f = arg;

	assert_false(f->ended);
	f->ended = true;
	f->code = end->code;
	f->status = end->status;
	snprintf(f->reason, sizeof(f->reason), "%s", end->reason);
	f->value = json_incref(end->value);
}

static const struct errand_ops ops = {on_said, on_done};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->fd = -1;
	f->said = json_array();
	*state = f;
	assert_int_equal(loop_create(&f->loop), 0);
	return errands_create(f->loop, &f->errands);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	errands_destroy(f->errands);
	loop_destroy(f->loop);
	json_decref(f->value);
	json_decref(f->said);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
	return 0;
}

static struct errand *begin(struct fixture *f, errand_fn *fn, void *arg)
{
	struct errand *e = NULL;
	struct error err = {""};

	f->ended = false;
	if (errand_start(f->errands, &ops, f, fn, arg, &e, &err))
		fail_msg("%s", err.text);
	return e;
}

static void finish(struct fixture *f)
{
	uint64_t end = io_now_ns() + 20000000000ull;

	while (!f->ended && io_now_ns() < end)
		loop_run_once(f->loop, 100);
	assert_true(f->ended);
}

static int give(int talk, void *arg, json_t **ret, struct error *err)
{
	*ret = json_pack("{s:s}", "what", (const char *)arg);
	return 0;
}

static int refuse(int talk, void *arg, json_t **ret, struct error *err)
{
	*ret = json_pack("{s:i}", "unsettled", 3);
	return error_set(err, -EBUSY, "no: %s", (const char *)arg);
}

static void test_ends(void **state)
{
	char this[] = "this", never[] = "never";
	struct fixture *f = *state;

	begin(f, give, this);
	finish(f);
	assert_int_equal(f->code, 0);
	assert_string_equal(json_string_value(json_object_get(f->value, "what")), "this");
	json_decref(f->value);

	begin(f, refuse, never);
	finish(f);
	assert_int_equal(f->code, -EBUSY);
	assert_string_equal(f->reason, "no: never");
	assert_int_equal(json_integer_value(json_object_get(f->value, "unsettled")), 3);
}

static int crash(int talk, void *arg, json_t **ret, struct error *err)
{
	fprintf(stderr, "first\nlast words\n");
	fflush(stderr);
	kill(getpid(), SIGKILL);
	return 0;
}

static int be_silent(int talk, void *arg, json_t **ret, struct error *err)
{
	_exit(7);
}

/* Who dies in the middle has failed, with what is known. */
static void test_crash(void **state)
{
	struct fixture *f = *state;

	begin(f, crash, NULL);
	finish(f);
	assert_int_equal(f->code, -ECHILD);
	assert_string_equal(f->reason, "last words");
	assert_true(WIFSIGNALED(f->status));
	begin(f, be_silent, NULL);
	finish(f);
	assert_int_equal(f->code, -ECHILD);
	assert_string_equal(f->reason, "exit code 7");
	assert_int_equal(WEXITSTATUS(f->status), 7);
}

/* Says what it is told, three times, and with each the descriptor of a pipe. */
static int answer(int talk, void *arg, json_t **ret, struct error *err)
{
	struct jsonline line = {0};
	json_t *message;
	int fds[2];

	if (pipe(fds))
		return -errno;
	for (int i = 0; i < 3; i++) {
		while (jsonline_take(&line, &message, err) == -EAGAIN)
			jsonline_read(&line, talk, 4096);
		if (i == 2)
			jsonline_write_fd(talk, message, fds[0]);
		else
			jsonline_write(talk, message);
		json_decref(message);
	}
	jsonline_done(&line);
	(void)!write(fds[1], "x", 1);
	return 0;
}

static void test_talk(void **state)
{
	struct fixture *f = *state;
	struct errand *e = begin(f, answer, NULL);
	json_t *message;
	char c;

	for (int i = 0; i < 3; i++) {
		message = json_pack("{s:i}", "n", i);
		assert_int_equal(errand_tell(e, message), 0);
		json_decref(message);
	}
	finish(f);
	assert_int_equal(f->code, 0);
	assert_int_equal(json_array_size(f->said), 3);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(f->said, 2), "n")), 2);
	assert_true(f->fd >= 0);
	assert_int_equal(read(f->fd, &c, 1), 1);
}

/* More than a socket holds, and ended before it was read. */
static int talk_much(int talk, void *arg, json_t **ret, struct error *err)
{
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	*ret = json_array();
	for (int i = 0; i < 2000; i++)
		json_array_append_new(*ret, json_string(text));
	return 0;
}

static void test_long(void **state)
{
	struct fixture *f = *state;

	begin(f, talk_much, NULL);
	finish(f);
	assert_int_equal(f->code, 0);
	assert_int_equal(json_array_size(f->value), 2000);
}

static int hang(int talk, void *arg, json_t **ret, struct error *err)
{
	if (arg)
		signal(SIGTERM, SIG_IGN);
	*ret = json_object();
	jsonline_write(talk, *ret);
	while (pause() < 0)
		continue;
	return 0;
}

static void wait_said(struct fixture *f)
{
	json_array_clear(f->said);
	while (!json_array_size(f->said))
		loop_run_once(f->loop, 100);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct errand *e = begin(f, hang, NULL);

	wait_said(f);
	errand_cancel(e, 10000);
	finish(f);
	assert_int_equal(WTERMSIG(f->status), SIGTERM);
	e = begin(f, hang, f);
	wait_said(f);
	errand_cancel(e, 20);
	finish(f);
	assert_int_equal(WTERMSIG(f->status), SIGKILL);
}

static int become(int talk, void *arg, json_t **ret, struct error *err)
{
	return errand_become(talk, arg, err);
}

static void test_program(void **state)
{
	static const char *const echo[] = {"sh", "-c", "read x; echo \"$x\"; echo no >&2; exit 3",
					   NULL};
	static const char *const missing[] = {"/nowhere/program", NULL};
	struct fixture *f = *state;
	struct errand *e = begin(f, become, (void *)echo);
	json_t *message = json_pack("{s:s}", "step", "cut");

	assert_int_equal(errand_tell(e, message), 0);
	finish(f);
	assert_true(json_equal(json_array_get(f->said, 0), message));
	json_decref(message);
	assert_int_equal(f->code, -ECHILD);
	assert_int_equal(WEXITSTATUS(f->status), 3);
	assert_string_equal(f->reason, "no");
	begin(f, become, (void *)missing);
	finish(f);
	assert_int_equal(f->code, -ENOENT);
	assert_non_null(strstr(f->reason, "/nowhere/program"));
}

/* Has an errand that only SIGKILL ends, tells its number, and is killed. */
static void __attribute__((noreturn)) be_part(struct fixture *f, int tell)
{
	CLEANUP_FREE char *path = io_format("/proc/self/task/%d/children", getpid());
	CLEANUP_FREE char *children = NULL;

	begin(f, hang, f);
	wait_said(f);
	if (io_read_file(path, 100, &children, NULL) > 0)
		(void)!write(tell, children, strlen(children));
	kill(getpid(), SIGKILL);
	_exit(1);
}

/* A part that is killed takes its errands along. */
static void test_part_killed(void **state)
{
	uint64_t end = io_now_ns() + 10000000000ull;
	char number[32] = "";
	pid_t part, child;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	part = fork();
	if (!part)
		be_part(*state, fds[1]);
	close(fds[1]);
	assert_true(read(fds[0], number, sizeof(number) - 1) > 0);
	close(fds[0]);
	child = atoi(number);
	assert_true(child > 1);
	assert_int_equal(waitpid(part, NULL, 0), part);
	while (!kill(child, 0) && io_now_ns() < end)
		usleep(10000);
	assert_int_equal(kill(child, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(test_talk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_program, setup, teardown),
		cmocka_unit_test_setup_teardown(test_part_killed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
