/* SPDX-License-Identifier: Apache-2.0 */
/* One operation at a time on a VM, and how it is cancelled. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/busy.h"
#include "lib/error.h"

static int setup(void **state)
{
	static char dir[] = "/tmp/wisp-busy-XXXXXX";
	static char control[sizeof(dir) + 8];

	if (!mkdtemp(dir))
		return -1;
	snprintf(control, sizeof(control), "%s/c", dir);
	*state = control;
	return 0;
}

static int teardown(void **state)
{
	char *dir = *state;

	*strrchr(dir, '/') = '\0';
	return rmdir(dir); /* nothing is left in it */
}

/* A process that is busy until a signal comes. */
static pid_t start(const char *control, bool decided, int *ready)
{
	int fd[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(fd), 0);
	pid = fork();
	if (!pid) {
		struct busy b = {.fd = -1};
		sigset_t set;
		int signal;

		sigemptyset(&set);
		sigaddset(&set, SIGTERM);
		sigprocmask(SIG_BLOCK, &set, NULL);
		if (busy_begin(&b, control, "send", NULL) < 0)
			_exit(9);
		if (decided)
			busy_decided(&b);
		if (write(fd[1], "x", 1) != 1)
			_exit(8);
		sigwait(&set, &signal);
		busy_end(&b, "cancelled");
		_exit(0);
	}
	close(fd[1]);
	*ready = read(fd[0], &byte, 1) == 1;
	close(fd[0]);
	return pid;
}

static int ended(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_nothing(void **state)
{
	struct busy b = {.fd = -1};
	struct busy_now now;
	struct error err;

	assert_int_equal(busy_look(*state, &now, &err), 0);
	assert_int_equal(now.pid, 0);
	assert_int_equal(busy_cancel(*state, 100, &now, &err), -ENOENT);
	busy_end(&b, "");
	assert_int_equal(busy_begin(&b, "/nonexistent/x", "send", &err), -ENOENT);
	assert_int_equal(b.fd, -1);
}

static void test_two(void **state)
{
	struct busy b = {.fd = -1};
	struct busy_now now;
	struct error err;
	int ready;
	pid_t pid = start(*state, false, &ready);

	assert_true(ready);
	assert_int_equal(busy_look(*state, &now, &err), 0);
	assert_int_equal(now.pid, pid);
	assert_string_equal(now.what, "send");
	assert_int_equal(busy_begin(&b, *state, "checkpoint", &err), -EBUSY);
	assert_non_null(strstr(err.text, "send, process"));
	assert_int_equal(busy_cancel(*state, 10000, &now, &err), 0);
	assert_string_equal(now.outcome, "cancelled");
	assert_int_equal(ended(pid), 0);
	assert_int_equal(busy_begin(&b, *state, "checkpoint", &err), 0);
	busy_end(&b, "done");
	assert_int_equal(busy_look(*state, &now, &err), 0);
	assert_int_equal(now.pid, 0);
}

/* Who is killed is not busy any more. */
static void test_killed(void **state)
{
	struct busy b = {.fd = -1};
	struct busy_now now;
	struct error err;
	int ready;
	pid_t pid = start(*state, false, &ready);

	kill(pid, SIGKILL);
	assert_int_equal(ended(pid), -SIGKILL);
	assert_int_equal(busy_look(*state, &now, &err), 0);
	assert_int_equal(now.pid, 0);
	assert_int_equal(busy_cancel(*state, 100, &now, &err), -ENOENT);
	assert_int_equal(busy_begin(&b, *state, "send", &err), 0);
	busy_end(&b, "done");
}

static void test_decided(void **state)
{
	struct busy_now now;
	struct error err;
	int ready;
	pid_t pid = start(*state, true, &ready);

	assert_int_equal(busy_cancel(*state, 100, &now, &err), -EALREADY);
	assert_non_null(strstr(err.text, "cannot be cancelled"));
	kill(pid, SIGTERM);
	assert_int_equal(ended(pid), 0);
}

/* Many begin and end at once: never two, and nobody is refused for nobody. */
static void test_race(void **state)
{
	char count[64];
	pid_t pid[8];

	snprintf(count, sizeof(count), "%s.count", (char *)*state);
	for (unsigned i = 0; i < 8; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		for (unsigned turn = 0; turn < 200;) {
			struct busy b = {.fd = -1};

			if (busy_begin(&b, *state, "send", NULL) < 0)
				continue;
			/* Made by one at a time, or the second fails. */
			if (symlink("x", count) || unlink(count))
				_exit(1);
			busy_end(&b, "done");
			turn++;
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(ended(pid[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing), cmocka_unit_test(test_two),
		cmocka_unit_test(test_killed),	cmocka_unit_test(test_decided),
		cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
