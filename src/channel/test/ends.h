/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_TEST_ENDS_H
#define WISP_CHANNEL_TEST_ENDS_H

/* One end of a connection that writes down what it hears. */

#include <errno.h>
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

#include "channel/conn.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

struct end {
	struct conn *conn;
	unsigned messages;
	json_t *last;
	size_t bytes, sent;
	unsigned ends;
	bool grants; /* what came is granted again at once */
	bool opens;  /* streams that messages name */
	bool closed;
	int code;
	char reason[256];
};

static void end_message(void *arg, json_t *message)
{
	struct end *e = arg;
	json_int_t stream = json_integer_value(json_object_get(message, "stream"));
	struct error err;

	e->messages++;
	json_decref(e->last);
	e->last = json_incref(message);
	if (e->opens && stream && conn_open(e->conn, (uint32_t)stream, &err) < 0)
		conn_fail(e->conn, -EPROTO, err.text);
}

static void end_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct end *e = arg;

	for (size_t i = 0; i < n; i++)
		assert_int_equal(data[i], (uint8_t)((e->bytes + i) * 31 >> 3));
	e->bytes += n;
	e->ends += !n;
	if (e->grants)
		conn_grant(e->conn, stream, n);
}

static void end_sent(void *arg, uint32_t stream, size_t n)
{
	struct end *e = arg;

	e->sent += n;
}

static void end_closed(void *arg, int code, const char *reason)
{
	struct end *e = arg;

	assert_false(e->closed);
	e->closed = true;
	e->code = code;
	snprintf(e->reason, sizeof(e->reason), "%s", reason);
	conn_destroy(e->conn);
	e->conn = NULL;
}

static const struct conn_ops end_ops = {end_message, end_data, end_sent, end_closed};

static inline void end_done(struct end *e)
{
	conn_destroy(e->conn);
	json_decref(e->last);
	*e = (struct end){0};
}

/* Runs the loop until *what, at most 20 s. */
#define RUN_UNTIL(loop, what)                                            \
	do {                                                             \
		uint64_t end_ = io_now_ns() + 20000000000ull;            \
		while (!(what)) {                                        \
			if (io_now_ns() > end_)                          \
				fail_msg("in vain for 20 s: %s", #what); \
			assert_true(loop_run_once(loop, 100) >= 0);      \
		}                                                        \
	} while (0)

static inline void run_for(struct loop *loop, unsigned ms)
{
	uint64_t end = io_now_ns() + ms * 1000000ull;

	while (io_now_ns() < end)
		loop_run_once(loop, 10);
}

#endif
