/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that die in the middle: what is taken back, when, and how often. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vms/guard.h"
#include "vms/record.h"
#include "vms/vms.h"

#define DYING_MS 1000 /* guard.c's */

struct keeper {
	struct loop *loop;
	struct guards *guards;
	char taken[64]; /* "name:peer," of each that was taken back */
	bool keep;
};

static void take_back(void *arg, const json_t *request)
{
	struct keeper *k = arg;
	size_t n = strlen(k->taken);

	snprintf(k->taken + n, sizeof(k->taken) - n, "%s:%s,", record_text(request, "name"),
		 json_string_value(json_array_get(json_object_get(request, "peers"), 0)));
}

static bool keep(void *arg, const json_t *request)
{
	return ((struct keeper *)arg)->keep;
}

static void start(struct keeper *k)
{
	*k = (struct keeper){0};
	assert_int_equal(loop_create(&k->loop), 0);
	assert_int_equal(guards_create(k->loop, take_back, keep, k, &k->guards), 0);
}

static void end(struct keeper *k)
{
	guards_destroy(k->guards);
	loop_destroy(k->loop);
}

static int add(struct keeper *k, const char *name, const char *peer)
{
	json_t *request = json_pack("{ss,s[s]}", "name", name, "peers", peer);
	struct error err;
	int fd = -1;

	assert_int_equal(guards_add(k->guards, request, &fd, &err), 0);
	json_decref(request);
	return fd;
}

static void run(struct keeper *k, unsigned ms)
{
	uint64_t until = io_now_ns() + ms * 1000000ull;

	while (io_now_ns() < until)
		assert_true(loop_run_once(k->loop, 20) >= 0);
}

/* A second after the death; not after the word, and not what is recorded by then. */
static void test_death(void **state)
{
	struct keeper k;
	int fd;

	start(&k);
	fd = add(&k, "a", "1");
	run(&k, 50);
	close(fd);
	run(&k, DYING_MS / 2);
	assert_string_equal(k.taken, "");
	run(&k, DYING_MS);
	assert_string_equal(k.taken, "a:1,");
	fd = add(&k, "a", "2");
	vms_release(&fd);
	assert_int_equal(fd, -1);
	run(&k, 50);
	fd = add(&k, "a", "3");
	close(fd);
	run(&k, 50);
	k.keep = true;
	run(&k, DYING_MS + 200);
	assert_string_equal(k.taken, "a:1,");
	/* What was recorded at the death stays so, also when it is settled since. */
	fd = add(&k, "a", "4");
	close(fd);
	run(&k, 50);
	k.keep = false;
	run(&k, DYING_MS + 200);
	assert_string_equal(k.taken, "a:1,");
	end(&k);
}

/* The next command comes within that second, or before anybody has seen the death. */
static void test_repeats(void **state)
{
	struct keeper k;
	int fd, other;

	start(&k);
	other = add(&k, "b", "1");
	for (unsigned seen = 0; seen < 2; seen++) {
		k.taken[0] = 0;
		close(add(&k, "a", "1"));
		if (seen)
			run(&k, 50);
		fd = add(&k, "a", "2");
		assert_string_equal(k.taken, "a:1,");
		run(&k, DYING_MS + 200);
		assert_string_equal(k.taken, "a:1,"); /* once, and nothing of who lives */
		close(fd);
		if (seen)
			run(&k, 50);
		guards_settle(k.guards, "b");
		assert_string_equal(k.taken, "a:1,");
		guards_settle(k.guards, "a");
		assert_string_equal(k.taken, "a:1,a:2,");
		run(&k, DYING_MS + 200);
		assert_string_equal(k.taken, "a:1,a:2,");
	}
	/* Who has said its word, which nobody has heard yet, has not died. */
	k.taken[0] = 0;
	fd = add(&k, "a", "3");
	vms_release(&fd);
	guards_settle(k.guards, "a");
	close(add(&k, "a", "4"));
	k.keep = true;
	guards_settle(k.guards, "a");
	assert_string_equal(k.taken, "");
	close(other);
	end(&k);
}

/* -------- networks of other versions -------- */

struct answer {
	int listener;
	const char *line;
};

static void *answer_once(void *arg)
{
	const struct answer *a = arg;
	char request[4096];
	int fd = accept(a->listener, NULL, NULL);

	if (read(fd, request, sizeof(request)) > 0)
		io_write_full(fd, a->line, strlen(a->line));
	close(fd);
	return NULL;
}

static int guard_at(const char *dir, const char *line, int *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/net/old/control", dir);
	struct answer a = {.line = line};
	pthread_t thread;
	int r;

	unlink(path);
	a.listener = io_unix_listen(path, err);
	assert_true(a.listener >= 0);
	assert_int_equal(pthread_create(&thread, NULL, answer_once, &a), 0);
	r = vms_guard("old", "a", false, NULL, ret, err);
	pthread_join(thread, NULL);
	close(a.listener);
	unlink(path);
	return r;
}

static void test_old_keeper(void **state)
{
	char dir[] = "/tmp/wisp-guard-XXXXXX", net[64];
	struct error err = {""};
	int fd = 7;

	assert_non_null(mkdtemp(dir));
	setenv("WISP_RUN", dir, 1);
	snprintf(net, sizeof(net), "%s/net/old", dir);
	assert_int_equal(io_make_dirs(net, 0700, &err), 0);
	assert_int_equal(
		guard_at(dir, "{\"ok\":false,\"error\":\"unknown op \\\"guard\\\"\"}\n", &fd, &err),
		0);
	assert_int_equal(fd, -1);
	vms_release(&fd);
	/* Anything else is a reason. */
	fd = 7;
	assert_int_equal(guard_at(dir, "{\"ok\":false,\"error\":\"no room\"}\n", &fd, &err),
			 -EREMOTEIO);
	assert_string_equal(err.text, "no room");
	assert_int_equal(fd, 7);
	assert_int_equal(
		guard_at(dir, "{\"ok\":false,\"error\":\"wait\",\"again\":true}\n", &fd, NULL),
		-EAGAIN);
	rmdir(net);
	snprintf(net, sizeof(net), "%s/net", dir);
	rmdir(net);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_repeats),
		cmocka_unit_test(test_old_keeper),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
