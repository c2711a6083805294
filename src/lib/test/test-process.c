/* SPDX-License-Identifier: Apache-2.0 */
/* Starting programs, and the folders of Wisp. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"

static int sh(const char *script, char **out, struct error *err)
{
	const char *const argv[] = {"sh", "-c", script, NULL};

	return process_run(&(struct process){.argv = argv}, out, NULL, err);
}

static void test_output_and_errors(void **state)
{
	CLEANUP_FREE char *out = NULL;
	struct error err;

	assert_int_equal(sh("echo one; echo two >&2", &out, &err), 0);
	assert_string_equal(out, "one\n");
	assert_int_equal(sh("echo why >&2; exit 7", NULL, &err), -ECHILD);
	assert_string_equal(err.text, "sh exited with 7: why");
	assert_int_equal(sh("kill -TERM $$", NULL, &err), -ECHILD);
	assert_non_null(strstr(err.text, "signal 15"));
}

static void test_cannot_run(void **state)
{
	const char *const argv[] = {"no-such-program-here", NULL};
	const char *const yes[] = {"true", NULL};
	struct error err;
	pid_t pid;

	assert_int_equal(process_start(&(struct process){.argv = argv}, &pid, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no-such-program-here"));
	assert_int_equal(
		process_start(&(struct process){.argv = yes, .cwd = "/nowhere"}, &pid, &err),
		-ENOENT);
	assert_non_null(strstr(err.text, "/nowhere"));
}

/* Descriptors arrive at their places even when these overlap, and no other arrives. */
static void test_fds(void **state)
{
	const char *const argv[] = {"sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l", NULL};
	CLEANUP_FREE char *out = NULL;
	int fds[5] = {-1, 1, 2, -1, -1};
	int a[2], b[2], stray = open("/dev/null", O_RDONLY);
	struct error err;

	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	assert_int_equal(io_write_full(a[1], "a", 1), 0);
	assert_int_equal(io_write_full(b[1], "b", 1), 0);
	close(a[1]);
	close(b[1]);
	/* 3 and 4 crossed when the numbers allow it. */
	fds[3] = b[0];
	fds[4] = a[0];
	assert_int_equal(process_run(&(struct process){.argv = argv, .fds = fds, .nfds = 5}, &out,
				     NULL, &err),
			 0);
	/* 0 to 4 and the one ls reads the directory by */
	assert_string_equal(out, "ba6\n");
	close(a[0]);
	close(b[0]);
	close(stray);
}

static void test_exit_code(void **state)
{
	const char *const argv[] = {"sh", "-c", "kill -KILL $$", NULL};
	struct error err;
	int status;
	pid_t pid;

	assert_int_equal(
		process_start(&(struct process){.argv = argv, .die_with_parent = true}, &pid, &err),
		0);
	assert_int_equal(process_wait(pid, &status), 0);
	assert_int_equal(process_exit_code(status), 128 + 9);
	assert_int_equal(process_exit_code(5 << 8), 5);
}

static void test_paths(void **state)
{
	char dir[] = "/tmp/wisp-test-XXXXXX";
	CLEANUP_FREE char *run = NULL;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *want = NULL;
	struct error err;
	struct stat st;

	assert_non_null(mkdtemp(dir));
	run = io_format("%s/run", dir);
	setenv("WISP_RUN", run, 1);
	assert_int_equal(paths_run("lab", "one", &path, &err), 0);
	want = io_format("%s/lab/one", run);
	assert_string_equal(path, want);
	assert_int_equal(stat(run, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(access(path, F_OK), -1);

	assert_int_equal(paths_run("lab", "../x", &path, &err), -EINVAL);
	assert_int_equal(paths_run("lab", "", &path, &err), -EINVAL);
	assert_int_equal(chmod(run, 0777), 0);
	assert_int_equal(paths_run("lab", "one", &path, &err), -EPERM);

	setenv("WISP_CACHE", "relative", 1);
	assert_int_equal(paths_cache("lab", NULL, &path, &err), -EINVAL);
	unsetenv("WISP_CACHE");
	unsetenv("XDG_CACHE_HOME");
	setenv("HOME", dir, 1);
	free(take_ptr(path));
	free(take_ptr(want));
	assert_int_equal(paths_cache("lab", NULL, &path, &err), 0);
	want = io_format("%s/.cache/wisp/lab", dir);
	assert_string_equal(path, want);
	assert_int_equal(access(path, F_OK), 0);

	const char *const rm[] = {"rm", "-r", dir, NULL};
	assert_int_equal(process_run(&(struct process){.argv = rm}, NULL, NULL, &err), 0);
}

static void test_program(void **state)
{
	CLEANUP_FREE char *path = NULL;
	struct error err;

	assert_int_equal(paths_program("test-process", &path, &err), 0);
	assert_non_null(strstr(path, "/test-process"));
	assert_int_equal(paths_program("no-such-program", &path, &err), -ENOENT);
	setenv("WISP_LIBEXECDIR", "/bin", 1);
	free(take_ptr(path));
	assert_int_equal(paths_program("sh", &path, &err), 0);
	assert_string_equal(path, "/bin/sh");
	unsetenv("WISP_LIBEXECDIR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_errors),
		cmocka_unit_test(test_cannot_run),
		cmocka_unit_test(test_fds),
		cmocka_unit_test(test_exit_code),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
