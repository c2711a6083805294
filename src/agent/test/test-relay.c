/* SPDX-License-Identifier: Apache-2.0 */
/* The relay between two "VMs": what gets through, what is refused, who waits for whom. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/relay.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

struct fixture {
	char dir[64], a[96], a_relay[96], b[96];
	struct loop *loop;
	struct relay *relay;
	pthread_t thread;
	int vmm; /* listens as the VMM of b */
};

static int lookup(void *arg, const char *from, const char *name, char **path, struct error *err)
{
	struct fixture *f = arg;

	if (strcmp(name, "b"))
		return error_set(err, -ENOENT, "%s knows no VM %s", from, name);
	*path = strdup(f->b);
	return 0;
}

static void *run(void *arg)
{
	struct fixture *f = arg;

	loop_run(f->loop);
	return NULL;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err;

	strcpy(f->dir, "/tmp/test-relay.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->a, sizeof(f->a), "%s/a", f->dir);
	snprintf(f->a_relay, sizeof(f->a_relay), "%s/a_1025", f->dir);
	snprintf(f->b, sizeof(f->b), "%s/b", f->dir);
	f->vmm = io_unix_listen(f->b, &err);
	if (f->vmm < 0 || loop_create(&f->loop) ||
	    relay_create(f->loop, NULL, lookup, f, &f->relay) ||
	    relay_add(f->relay, "a", f->a, &err))
		return -1;
	*state = f;
	return pthread_create(&f->thread, NULL, run, f);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	relay_destroy(f->relay);
	assert_int_equal(access(f->a_relay, F_OK), -1);
	loop_destroy(f->loop);
	close(f->vmm);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	free(f);
	return system(command);
}

static void put(int fd, const char *text)
{
	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
}

static void expect(int fd, const char *text)
{
	char got[256] = "";

	assert_int_equal(io_read_full(fd, got, strlen(text)), 0);
	assert_string_equal(got, text);
}

static void expect_end(int fd)
{
	char c;

	assert_true(read(fd, &c, 1) <= 0);
}

/* A guest's connection that was let through, and the end at the target's VMM. */
static int through(struct fixture *f, int *target)
{
	int guest = io_unix_connect(f->a_relay, NULL);

	assert_true(guest >= 0);
	put(guest, "{\"version\":1,\"host\":\"b\"}\n");
	*target = accept(f->vmm, NULL, NULL);
	assert_true(*target >= 0);
	expect(*target, "CONNECT 1024\n");
	put(*target, "OK 7\nhello"); /* the agent speaks at once */
	expect(guest, "OK\nhello");
	return guest;
}

static void test_through(void **state)
{
	int target, guest = through(*state, &target);

	put(guest, "question");
	expect(target, "question");
	/* Half-close goes through, the other direction lives on. */
	shutdown(guest, SHUT_WR);
	expect_end(target);
	put(target, "answer");
	expect(guest, "answer");
	close(target);
	expect_end(guest);
	close(guest);
}

static void test_guest_dies(void **state)
{
	int target, guest = through(*state, &target);

	close(guest);
	expect_end(target);
	close(target);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *request, *answer;
	} rows[] = {
		{"{\"version\":1,\"host\":\"c\"}\n", "ERROR a knows no VM c\n"},
		{"{\"version\":2,\"host\":\"b\"}\n", "ERROR the request is not"},
		{"GET / HTTP/1.0\n", "ERROR the request is not"},
		{"{\"version\":1,\"host\":7}\n", "ERROR the request is not"},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int guest = io_unix_connect(f->a_relay, NULL);

		put(guest, rows[i].request);
		expect(guest, rows[i].answer);
		close(guest);
	}
}

static void test_long_line(void **state)
{
	struct fixture *f = *state;
	int guest = io_unix_connect(f->a_relay, NULL);
	char line[600];

	memset(line, 'x', sizeof(line));
	assert_int_equal(io_write_full(guest, line, sizeof(line)), 0);
	expect(guest, "ERROR no request line\n");
	close(guest);
}

static void test_target_gone(void **state)
{
	struct fixture *f = *state;
	int guest, target;

	guest = io_unix_connect(f->a_relay, NULL);
	put(guest, "{\"version\":1,\"host\":\"b\"}\n");
	target = accept(f->vmm, NULL, NULL);
	close(target);
	expect(guest, "ERROR the agent of the VM does not answer\n");
	expect_end(guest);
	close(guest);
	unlink(f->b);
	guest = io_unix_connect(f->a_relay, NULL);
	put(guest, "{\"version\":1,\"host\":\"b\"}\n");
	expect(guest, "ERROR b does not run\n");
	close(guest);
}

/* A target that reads nothing stops the guest, not the relay; then everything arrives. */
static void test_backpressure(void **state)
{
	int target, guest = through(*state, &target);
	uint64_t sent = 0, got = 0, wakeups;
	char buf[65536];
	struct fixture *f = *state;
	int target2, guest2;
	ssize_t n;

	memset(buf, 'y', sizeof(buf));
	for (;;) {
		struct pollfd p = {.fd = guest, .events = POLLOUT};

		if (poll(&p, 1, 200) <= 0)
			break;
		n = send(guest, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0)
			sent += (uint64_t)n;
		assert_true(sent < 64u << 20);
	}
	guest2 = through(f, &target2);
	put(guest2, "x");
	expect(target2, "x");
	close(guest2);
	close(target2);
	/* The guest goes while its bytes still wait: nobody spins over that. */
	close(guest);
	usleep(50000);
	wakeups = loop_wakeups(f->loop);
	usleep(200000);
	assert_true(loop_wakeups(f->loop) - wakeups < 10);
	while ((n = read(target, buf, sizeof(buf))) > 0)
		got += (uint64_t)n;
	assert_int_equal(got, sent);
	close(target);
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	int guests[257];

	for (unsigned i = 0; i < 257; i++) {
		guests[i] = io_unix_connect(f->a_relay, NULL);
		assert_true(guests[i] >= 0);
	}
	expect(guests[256], "ERROR too many connections\n");
	for (unsigned i = 0; i < 257; i++)
		close(guests[i]);
	usleep(100000);
	test_through(state);
}

static void test_remove(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	relay_remove(f->relay, "nosuch");
	relay_remove(f->relay, "a");
	assert_true(io_unix_connect(f->a_relay, NULL) < 0);
	assert_int_equal(relay_add(f->relay, "a", f->a, NULL), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
	test_through(state);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_through),   TEST(test_guest_dies),  TEST(test_refused),
		TEST(test_long_line), TEST(test_target_gone), TEST(test_backpressure),
		TEST(test_remove),    TEST(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
