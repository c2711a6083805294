/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs of wisp-node-helper: what they make and leave, and that a program of a user has nothing of
 * root's. Most needs root.
 */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "net/state.h"
#include "node/helper-call.h"
#include "node/test/made.h"

#define NOBODY 65534
#define GROUPS "/sys/fs/cgroup/unified"

struct bench {
	struct loop *loop;
	struct helper_calls calls;
	char *root, *run, *network;
	int code, status;
	unsigned done, ended;
	char reason[512];
};

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	if (made_set_up(state) || loop_create(&b->loop))
		return -1;
	b->calls.loop = b->loop;
	b->root = *state;
	b->run = io_format("%s/run", b->root);
	b->network = io_format("%s/network", b->root);
	chmod(b->root, 0711);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;
	void *root = b->root;

	helper_calls_done(&b->calls);
	loop_destroy(b->loop);
	umount2(b->network, MNT_DETACH);
	free(b->run);
	free(b->network);
	free(b);
	return made_tear_down(&root);
}

static void on_done(void *arg, int code, const char *reason)
{
	struct bench *b = arg;

	b->done++;
	b->code = code;
	snprintf(b->reason, sizeof(b->reason), "%s", reason);
}

static void on_ended(void *arg, int status)
{
	struct bench *b = arg;

	b->ended++;
	b->status = status;
}

static const struct helper_ops once = {on_done, NULL}, stays = {on_done, on_ended};

static void wait_for(struct bench *b, const unsigned *count)
{
	uint64_t end = io_now_ns() + 20000000000ull;

	while (!*count && io_now_ns() < end)
		loop_run_once(b->loop, 100);
	assert_int_equal(*count, 1);
}

/* Takes the job; its code. */
static int job(struct bench *b, json_t *text)
{
	struct error err;

	assert_non_null(text);
	b->done = 0;
	if (helper_start(&b->calls, text, -1, &once, b, NULL, &err))
		fail_msg("%s", err.text);
	json_decref(text);
	wait_for(b, &b->done);
	return b->code;
}

static void well(struct bench *b, json_t *text)
{
	if (job(b, text))
		fail_msg("%s", b->reason);
}

/* The user's program is a shell script that says what it is, in a file of the user's. */
static json_t *become(const struct bench *b, const char *script)
{
	return json_pack("{s:s, s:i, s:s, s:o, s:[s, s, s]}", "op", "become", "user", NOBODY, "run",
			 b->run, "log", json_sprintf("%s/log", b->run), "argv", "/bin/sh", "-c",
			 script);
}

static char *said_in_log(const struct bench *b)
{
	CLEANUP_FREE char *path = io_format("%s/log", b->run);
	char *text = NULL;

	if (io_read_file(path, 1 << 20, &text, NULL) < 0)
		text = strdup("");
	return text;
}

/* -------- tests -------- */

static void test_mistakes(void **state)
{
	struct bench *b = *state;

	assert_int_equal(job(b, json_pack("{s:s}", "op", "fly")), -ENOSYS);
	assert_non_null(strstr(b->reason, "\"fly\""));
	assert_int_equal(job(b, json_object()), -EINVAL);
	assert_int_equal(job(b, json_pack("{s:s}", "op", "network-make")), -EINVAL);
	assert_int_equal(job(b, json_pack("{s:s}", "op", "clean")), -EINVAL);
	assert_int_equal(job(b, json_pack("{s:s}", "op", "become")), -EPERM);
	assert_int_equal(job(b, json_pack("{s:s, s:i, s:[]}", "op", "become", "user",
					  (int)geteuid(), "argv")),
			 -EINVAL);
	assert_int_equal(job(b, json_pack("{s:s, s:i, s:[s]}", "op", "become", "user",
					  (int)geteuid(), "argv", "/no/such/program")),
			 -ENOENT);
}

/* Descriptors, capabilities, groups, environment: nothing of root's is in the user's program. */
static void test_user(void **state)
{
	struct bench *b = *state;
	CLEANUP_FREE char *said = NULL, *own = NULL;
	int leaked;

	if (geteuid())
		skip();
	setenv("SECRET", "root's", 1);
	leaked = open("/etc/shadow", O_RDONLY); /* deliberately without CLOEXEC */
	assert_true(leaked >= 0);
	well(b, become(b, "{ grep -E '^(Uid|Gid|Cap|NoNewPrivs)' /proc/self/status; env; "
			  "ls /proc/self/fd | tr '\\n' ' '; pwd; } >&2; echo {}"));
	close(leaked);
	unsetenv("SECRET");
	said = said_in_log(b);
	assert_non_null(strstr(said, "Uid:\t65534\t65534\t65534\t65534\n"));
	assert_non_null(strstr(said, "Gid:\t65534\t65534\t65534\t65534\n"));
	assert_non_null(strstr(said, "CapInh:\t0000000000000000\n"));
	assert_non_null(strstr(said, "CapPrm:\t0000000000000000\n"));
	assert_non_null(strstr(said, "CapEff:\t0000000000000000\n"));
	assert_non_null(strstr(said, "CapAmb:\t0000000000000000\n"));
	assert_non_null(strstr(said, "NoNewPrivs:\t1\n"));
	assert_null(strstr(said, "SECRET"));
	own = io_format("WISP_RUN=%s\n", b->run);
	assert_non_null(strstr(said, own));
	/* 3 is the folder that ls reads. */
	assert_non_null(strstr(said, "0 1 2 3 /\n"));
}

static void test_folder(void **state)
{
	struct bench *b = *state;
	struct stat st;

	if (geteuid())
		skip();
	/* Somebody else's is never taken. */
	assert_int_equal(symlink("/etc", b->run), 0);
	assert_int_equal(job(b, become(b, "echo {}")), -EEXIST);
	assert_int_equal(unlink(b->run), 0);
	assert_int_equal(mkdir(b->run, 0700), 0);
	assert_int_equal(job(b, become(b, "echo {}")), -EEXIST);
	assert_int_equal(rmdir(b->run), 0);
	well(b, become(b, "echo {}"));
	assert_int_equal(lstat(b->run, &st), 0);
	assert_int_equal(st.st_uid, NOBODY);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* A log that leads elsewhere is not followed, and not root who would write there. */
	well(b, become(b, "rm $WISP_RUN/log; ln -s /etc/passwd $WISP_RUN/log; echo {}"));
	assert_int_equal(job(b, become(b, "echo {}")), -ELOOP);
}

/* A program that stays: told when it runs, and when it ends; its socket is descriptor 0. */
static void test_stays(void **state)
{
	struct bench *b = *state;
	struct helper_call *call = NULL;
	struct error err;
	char word[6] = "";
	json_t *text = json_pack("{s:s, s:i, s:b, s:[s, s, s]}", "op", "become", "user",
				 (int)geteuid(), "socket", 1, "argv", "/bin/sh", "-c",
				 "echo hello >&0; read line <&0; exit 7");
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(helper_start(&b->calls, text, pair[1], &stays, b, &call, &err), 0);
	json_decref(text);
	close(pair[1]);
	wait_for(b, &b->done);
	assert_int_equal(b->code, 0);
	assert_true(helper_pid(call) > 0);
	assert_int_equal(io_read_full(pair[0], word, 5), 0);
	assert_string_equal(word, "hello");
	assert_int_equal(b->ended, 0);
	close(pair[0]);
	wait_for(b, &b->ended);
	assert_int_equal(WEXITSTATUS(b->status), 7);
}

/* A user can stop a program that the daemon waits for, and hold what it would be heard by. */
static void test_kill(void **state)
{
	struct bench *b = *state;
	struct helper_call *call = NULL;
	struct error err;
	json_t *text = json_pack("{s:s, s:i, s:[s, s, s]}", "op", "become", "user", (int)geteuid(),
				 "argv", "/bin/sh", "-c", "sleep 15 & kill -STOP $$");
	uint64_t begin = io_now_ns();

	assert_int_equal(helper_start(&b->calls, text, -1, &once, b, &call, &err), 0);
	json_decref(text);
	for (int i = 0; i < 10; i++)
		loop_run_once(b->loop, 50);
	assert_int_equal(b->done, 0);
	helper_kill(call);
	wait_for(b, &b->done);
	assert_true(io_now_ns() - begin < 10000000000ull);
	assert_int_equal(b->code, -ECHILD);
	assert_null(b->calls.first);
}

/* Whoever is in a cluster's network is killed with it, and it is gone; twice is once. */
static void test_network(void **state)
{
	struct bench *b = *state;
	struct helper_call *call = NULL;
	struct error err;
	json_t *text;
	int pair[2];

	if (geteuid())
		skip();
	text = json_pack("{s:s, s:s, s:i, s:i, s:[s, s]}", "op", "network-make", "path", b->network,
			 "vni", 4711, "user", NOBODY, "taps", "vm2", "vm3");
	/* Again: what an earlier one left is made anew. */
	well(b, json_incref(text));
	well(b, text);
	well(b, json_pack("{s:s, s:s, s:i, s:[s], s:[s]}", "op", "network-taps", "path", b->network,
			  "user", NOBODY, "add", "vm4", "remove", "vm3"));
	well(b, json_pack("{s:s, s:i, s:s, s:s, s:o, s:[s, s, s]}", "op", "become", "user", NOBODY,
			  "run", b->run, "network", b->network, "log",
			  json_sprintf("%s/log", b->run), "argv", "/bin/sh", "-c",
			  "while read name rest; do echo $name; done </proc/net/dev >&2; echo {}"));
	{
		CLEANUP_FREE char *said = said_in_log(b);

		assert_non_null(strstr(said, "vm2:"));
		assert_non_null(strstr(said, "vm4:"));
		assert_null(strstr(said, "vm3:"));
	}
	/* One that stays there. */
	b->done = 0;
	text = become(b, "sleep 1000 & sleep 1000");
	json_object_set_new(text, "network", json_string(b->network));
	json_object_set_new(text, "socket", json_true());
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(helper_start(&b->calls, text, pair[1], &stays, b, &call, &err), 0);
	json_decref(text);
	close(pair[1]);
	close(pair[0]);
	wait_for(b, &b->done);
	assert_int_equal(b->code, 0);
	for (unsigned i = 0; i < 2; i++) {
		well(b, json_pack("{s:s, s:s, s:s}", "op", "clean", "cluster", "c-1", "network",
				  b->network));
		assert_int_equal(access(b->network, F_OK), -1);
	}
	wait_for(b, &b->ended);
	assert_int_equal(WTERMSIG(b->status), SIGKILL);
}

/* The keeper of a network that root made: begun, found, ended, as the user. */
static void test_keeper(void **state)
{
	struct bench *b = *state;
	CLEANUP_FREE char *dir = io_format("%s/net/c-1", b->run);
	CLEANUP_FREE char *program = NULL;
	const char *const ways[] = {"start", "start", "end", "end"};
	struct error err;

	if (geteuid())
		skip();
	if (paths_program("wisp-keeper", &program, &err))
		fail_msg("%s", err.text);
	well(b, json_pack("{s:s, s:s, s:i, s:i, s:[s]}", "op", "network-make", "path", b->network,
			  "vni", 4711, "user", NOBODY, "taps", "vm2"));
	for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
		json_t *argv = json_pack("[s, s, s]", program, ways[i], "c-1");

		if (i < 2) {
			json_array_append_new(argv, json_string("10.78.0.0/24"));
			json_array_append_new(argv, json_string("0123456789abcdef"));
		}
		well(b, json_pack("{s:s, s:i, s:s, s:s*, s:o, s:o}", "op", "become", "user", NOBODY,
				  "run", b->run, "network", i < 2 ? b->network : NULL, "log",
				  json_sprintf("%s/log", b->run), "argv", argv));
		assert_int_equal(state_alive(dir), i < 2);
	}
	well(b,
	     json_pack("{s:s, s:s, s:s}", "op", "clean", "cluster", "c-1", "network", b->network));
}

static void test_group(void **state)
{
	struct bench *b = *state;
	CLEANUP_FREE char *cluster = io_format("test-%d", (int)getpid());
	CLEANUP_FREE char *dir = io_format(GROUPS "/wisp.slice/job-%s", cluster);
	CLEANUP_FREE char *part = io_format("%s/part", dir);
	CLEANUP_FREE char *procs = io_format("%s/cgroup.procs", part);
	CLEANUP_FREE char *there = NULL;
	struct helper_call *call = NULL;
	struct error err;
	json_t *text;
	struct stat st;
	int pair[2];

	if (geteuid() || access(GROUPS "/cgroup.procs", F_OK))
		skip();
	assert_int_equal(io_make_dirs(dir, 0755, NULL), 0);
	text = become(b, "sleep 1000 & sleep 1000");
	json_object_set_new(text, "socket", json_true());
	json_object_set_new(text, "cgroups", json_string(GROUPS));
	json_object_set_new(text, "cluster", json_string(cluster));
	json_object_set_new(text, "part", json_string("part"));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(helper_start(&b->calls, text, pair[1], &stays, b, &call, &err), 0);
	json_decref(text);
	close(pair[1]);
	close(pair[0]);
	wait_for(b, &b->done);
	assert_string_equal(b->reason, "");
	assert_int_equal(stat(part, &st), 0);
	assert_int_equal(st.st_uid, NOBODY);
	assert_true(io_read_file(procs, 4096, &there, NULL) > 0);
	assert_int_equal(strtol(there, NULL, 10), helper_pid(call));
	for (unsigned i = 0; i < 2; i++)
		well(b, json_pack("{s:s, s:s, s:s}", "op", "clean", "cluster", cluster, "cgroups",
				  GROUPS));
	wait_for(b, &b->ended);
	assert_int_equal(WTERMSIG(b->status), SIGKILL);
	assert_int_equal(access(dir, F_OK), -1);
	rmdir(GROUPS "/wisp.slice");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mistakes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_user, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_folder, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_kill, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_network, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_keeper, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_group, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
