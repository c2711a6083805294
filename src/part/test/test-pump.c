/* SPDX-License-Identifier: Apache-2.0 */
/* Pumps: bytes both ways, ends apart, and who does not read holds back who writes. */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "channel/conn.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "part/pump.h"

#define STREAM 1
#define MUCH (2u << 20)

struct fixture {
	struct loop *loop;
	struct conn *daemon, *part;
	struct pumps *pumps;
	int socket; /* what the pump's descriptor leads to */
	size_t come;
	bool ended, greedy; /* greedy: the daemon grants what it gets */
	bool wrong;	    /* a byte is not what it should be */
};

static void on_message(void *arg, json_t *message)
{
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct fixture *f = arg;

	for (size_t i = 0; i < n; i++)
		f->wrong |= data[i] != (uint8_t)((f->come + i) * 7);
	f->come += n;
	f->ended |= !n;
	if (f->greedy && n)
		conn_grant(f->daemon, stream, n);
}

static void on_closed(void *arg, int code, const char *reason)
{
	fail_msg("closed: %s", reason);
}

static void part_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct fixture *f = arg;

	pumps_data(f->pumps, stream, data, n);
}

static void part_sent(void *arg, uint32_t stream, size_t n)
{
	struct fixture *f = arg;

	pumps_sent(f->pumps, stream);
}

static const struct conn_ops daemon_ops = {on_message, on_data, NULL, on_closed};
static const struct conn_ops part_ops = {on_message, part_data, part_sent, on_closed};

static struct conn *make(struct fixture *f, int fd, const struct conn_ops *ops)
{
	const struct conn_params params = {
		.loop = f->loop, .in = fd, .out = fd, .ops = ops, .arg = f, .dead_ms = 60000};
	struct conn *conn = NULL;

	assert_int_equal(conn_create(&params, &conn, NULL), 0);
	return conn;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int wire[2], end[2];

	signal(SIGPIPE, SIG_IGN);
	*state = f;
	assert_int_equal(loop_create(&f->loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wire), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
	f->daemon = make(f, wire[0], &daemon_ops);
	f->part = make(f, wire[1], &part_ops);
	assert_int_equal(pumps_create(f->loop, f->part, &f->pumps, NULL), 0);
	assert_int_equal(conn_open(f->daemon, STREAM, NULL), 0);
	assert_int_equal(pump_open(f->pumps, STREAM, NULL), 0);
	f->socket = end[0];
	pump_connect(f->pumps, STREAM, end[1]);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pumps_destroy(f->pumps);
	conn_destroy(f->daemon);
	conn_destroy(f->part);
	loop_run_once(f->loop, 0);
	if (f->socket >= 0)
		close(f->socket);
	loop_destroy(f->loop);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 20; i++)
		loop_run_once(f->loop, 1);
}

/* Writes to the socket what it takes. */
static size_t fill(struct fixture *f, size_t from, size_t to)
{
	uint8_t chunk[4096];

	while (from < to) {
		size_t n = to - from < sizeof(chunk) ? to - from : sizeof(chunk);
		ssize_t sent;

		for (size_t i = 0; i < n; i++)
			chunk[i] = (uint8_t)((from + i) * 7);
		sent = send(f->socket, chunk, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		from += (size_t)sent;
	}
	return from;
}

/* The daemon that grants nothing gets a window, and the rest when it does. */
static void test_out(void **state)
{
	struct fixture *f = *state;
	size_t sent = 0, before;
	uint64_t end = io_now_ns() + 20000000000ull;

	for (int i = 0; i < 20; i++) {
		sent = fill(f, sent, MUCH);
		turn(f);
	}
	assert_int_equal(f->come, CONN_WINDOW);
	assert_true(sent < MUCH);
	before = f->come;
	f->greedy = true;
	conn_grant(f->daemon, STREAM, before);
	while (f->come < MUCH && io_now_ns() < end) {
		sent = fill(f, sent, MUCH);
		turn(f);
	}
	assert_int_equal(f->come, MUCH);
	assert_false(f->wrong);
	assert_false(f->ended);
	shutdown(f->socket, SHUT_WR);
	turn(f);
	assert_true(f->ended);
}

/* A socket that nobody reads holds the daemon back, and all comes in the end, with the end. */
static void test_in(void **state)
{
	struct fixture *f = *state;
	static uint8_t chunk[8192], got[65536];
	size_t sent = 0, come = 0;
	uint64_t end = io_now_ns() + 20000000000ull;
	bool held = false, wrong = false;

	while (come < MUCH && io_now_ns() < end) {
		ssize_t n;

		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = (uint8_t)((sent + i) * 7);
		while (sent < MUCH && !conn_write(f->daemon, STREAM, chunk, sizeof(chunk))) {
			sent += sizeof(chunk);
			for (size_t i = 0; i < sizeof(chunk); i++)
				chunk[i] = (uint8_t)((sent + i) * 7);
		}
		held |= sent < MUCH;
		turn(f);
		n = recv(f->socket, got, sizeof(got), MSG_DONTWAIT);
		for (ssize_t i = 0; i < n; i++)
			wrong |= got[i] != (uint8_t)((come + (size_t)i) * 7);
		come += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(come, MUCH);
	assert_true(held);
	assert_false(wrong);
	conn_end(f->daemon, STREAM);
	turn(f);
	assert_int_equal(recv(f->socket, got, 1, MSG_DONTWAIT), 0);
	/* The other way is open. */
	assert_int_equal(fill(f, 0, 10), 10);
	turn(f);
	assert_int_equal(f->come, 10);
	close(f->socket);
	f->socket = -1;
	turn(f);
	assert_true(f->ended);
}

/* Reset: the VM's end sees an end, and what still comes goes nowhere. */
static void test_close(void **state)
{
	struct fixture *f = *state;
	static const uint8_t chunk[4096];
	char c;

	pump_close(f->pumps, STREAM);
	turn(f);
	assert_true(f->ended);
	assert_int_equal(recv(f->socket, &c, 1, MSG_DONTWAIT), 0);
	for (unsigned i = 0; i < MUCH / sizeof(chunk); i++) {
		assert_int_equal(conn_write(f->daemon, STREAM, chunk, sizeof(chunk)), 0);
		turn(f);
	}
	conn_end(f->daemon, STREAM);
	turn(f);
	assert_int_equal(conn_write(f->daemon, STREAM, chunk, 1), -EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_out, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
