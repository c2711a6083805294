/* SPDX-License-Identifier: Apache-2.0 */
/* Connections are taken, also after descriptors had run out; a socket that is none is told. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

struct fixture {
	struct loop *loop;
	struct acceptor *acceptor;
	char path[64];
	unsigned connections;
	int last, broken;
	bool once; /* the first connection ends the acceptor */
};

static void on_connection(void *arg, int fd, const struct sockaddr_storage *peer)
{
	struct fixture *f = arg;

	assert_int_equal(peer->ss_family, AF_UNIX);
	if (f->last >= 0)
		close(f->last);
	f->last = fd;
	f->connections++;
	if (f->once)
		acceptor_destroy(take_ptr(f->acceptor));
}

static void on_broken(void *arg, int code)
{
	struct fixture *f = arg;

	f->broken = code;
	acceptor_destroy(take_ptr(f->acceptor));
}

static const struct acceptor_ops ops = {on_connection, on_broken};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	f->last = -1;
	snprintf(f->path, sizeof(f->path), "/tmp/test-acceptor.%d", getpid());
	fd = io_unix_listen(f->path, NULL);
	*state = f;
	return fd < 0 || loop_create(&f->loop) ||
	       acceptor_create(f->loop, NULL, "test", fd, SOCK_NONBLOCK, &ops, f, &f->acceptor,
			       NULL);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	acceptor_destroy(f->acceptor);
	loop_destroy(f->loop);
	if (f->last >= 0)
		close(f->last);
	unlink(f->path);
	free(f);
	return 0;
}

static void test_connection(void **state)
{
	struct fixture *f = *state;
	CLEANUP_CLOSE int a = io_unix_connect(f->path, NULL);
	CLEANUP_CLOSE int b = io_unix_connect(f->path, NULL);

	while (f->connections < 2)
		assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_true(fcntl(f->last, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(f->last, F_GETFD) & FD_CLOEXEC);
}

static void test_shortage(void **state)
{
	struct fixture *f = *state;
	CLEANUP_CLOSE int client = io_unix_connect(f->path, NULL);
	struct rlimit old, none;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	/* It is not woken for what it cannot take. */
	assert_int_equal(loop_run_once(f->loop, 300), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(f->connections, 0);
	while (!f->connections)
		assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(f->broken, 0);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;
	CLEANUP_CLOSE int client = io_unix_connect(f->path, NULL);

	acceptor_pause(f->acceptor, true);
	acceptor_pause(f->acceptor, true);
	assert_int_equal(loop_run_once(f->loop, 100), 0);
	acceptor_pause(f->acceptor, false);
	while (!f->connections)
		assert_int_equal(loop_run_once(f->loop, 10000), 1);
}

static void test_ends_inside(void **state)
{
	struct fixture *f = *state;
	CLEANUP_CLOSE int client = io_unix_connect(f->path, NULL);

	f->once = true;
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_null(f->acceptor);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	assert_int_equal(io_unix_connect(f->path, NULL), -ECONNREFUSED);
}

static void test_broken(void **state)
{
	struct fixture *f = *state;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	acceptor_destroy(take_ptr(f->acceptor));
	assert_int_equal(
		acceptor_create(f->loop, NULL, "test", pair[0], 0, &ops, f, &f->acceptor, NULL), 0);
	close(pair[1]);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(f->broken, -EINVAL);
	assert_null(f->acceptor);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {TEST(test_connection), TEST(test_shortage),
					   TEST(test_pause), TEST(test_ends_inside),
					   TEST(test_broken)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
