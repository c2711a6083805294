/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: messages, streams and their credit, silence, peers that do not read or speak
 * nonsense. */

#include "channel/test/ends.h"

#include <pthread.h>
#include <signal.h>
#include <sys/uio.h>

#include "channel/tls.h"

struct fixture {
	struct loop *loop;
	struct end a, b;
	int raw; /* instead of b's connection */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	signal(SIGPIPE, SIG_IGN);
	f->raw = -1;
	*state = f;
	return loop_create(&f->loop);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	end_done(&f->a);
	end_done(&f->b);
	loop_run_once(f->loop, 0);
	if (f->raw >= 0)
		close(f->raw);
	loop_destroy(f->loop);
	free(f);
	return 0;
}

static void make(struct fixture *f, struct end *e, int in, int out, struct tls *tls)
{
	struct conn_params p = {.loop = f->loop,
				.in = in,
				.out = out,
				.tls = tls,
				.ops = &end_ops,
				.arg = e,
				.queue_max = 1u << 20,
				.alive_ms = 50,
				.dead_ms = 300};
	struct error err = {{0}};

	if (conn_create(&p, &e->conn, &err))
		fail_msg("%s", err.text);
	e->opens = true;
}

static void make_pair(struct fixture *f)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	make(f, &f->a, s[0], s[0], NULL);
	make(f, &f->b, s[1], s[1], NULL);
}

static void make_raw(struct fixture *f)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	make(f, &f->a, s[0], s[0], NULL);
	f->raw = s[1];
}

static int say(struct end *e, json_t *m)
{
	struct error err = {{0}};
	int rc = conn_send(e->conn, m, &err);

	json_decref(m);
	return rc;
}

static json_t *big_message(size_t n)
{
	char *text = malloc(n);
	json_t *m;

	memset(text, 'x', n);
	m = json_pack("{s:s#}", "op", text, (int)n);
	free(text);
	return m;
}

/* Both ways, small and greater than any buffer, then in peace. */
static void talk(struct fixture *f)
{
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(say(&f->a, json_pack("{s:s, s:i}", "op", "x", "id", i + 1)), 0);
		assert_int_equal(say(&f->b, json_pack("{s:i}", "re", i + 1)), 0);
	}
	assert_int_equal(say(&f->a, big_message(900000)), 0);
	RUN_UNTIL(f->loop, f->a.messages == 100 && f->b.messages == 101);
	assert_int_equal(json_string_length(json_object_get(f->b.last, "op")), 900000);
	run_for(f->loop, 700);
	assert_false(f->a.closed || f->b.closed);
	say(&f->a, json_pack("{s:s}", "op", "last"));
	conn_finish(f->a.conn);
	RUN_UNTIL(f->loop, f->a.closed && f->b.closed);
	assert_int_equal(f->a.code, 0);
	assert_int_equal(f->b.code, 0);
	assert_int_equal(f->b.messages, 102);
}

static void test_socket(void **state)
{
	make_pair(*state);
	talk(*state);
}

static void test_pipes(void **state)
{
	struct fixture *f = *state;
	int down[2], up[2];

	assert_int_equal(pipe(down), 0);
	assert_int_equal(pipe(up), 0);
	make(f, &f->a, up[0], down[1], NULL);
	make(f, &f->b, down[0], up[1], NULL);
	talk(f);
}

static void *shake(void *arg)
{
	struct tls *tls = arg;
	short wait;
	struct error err;
	ssize_t rc;

	while ((rc = tls_handshake(tls, &wait, &err)) == -EAGAIN)
		usleep(1000);
	return rc == 1 ? NULL : tls;
}

static void make_tls(struct fixture *f)
{
	static const uint8_t key[TLS_KEY] = {1, 2, 3};
	struct tls *tls[2];
	pthread_t thread;
	struct error err;
	void *result;
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(tls_create(s[i], i, "test", key, &tls[i], &err), 0);
	pthread_create(&thread, NULL, shake, tls[1]);
	assert_null(shake(tls[0]));
	pthread_join(thread, &result);
	assert_null(result);
	make(f, &f->a, s[0], s[0], tls[0]);
	make(f, &f->b, s[1], s[1], tls[1]);
}

static void test_tls(void **state)
{
	make_tls(*state);
	talk(*state);
}

static void open_stream(struct fixture *f, uint32_t n)
{
	struct error err = {{0}};

	assert_int_equal(conn_open(f->a.conn, n, &err), 0);
	assert_int_equal(say(&f->a, json_pack("{s:s, s:i}", "op", "x", "stream", (int)n)), 0);
}

/* Writes until total bytes were taken. */
static void pour(struct fixture *f, size_t total)
{
	uint8_t piece[5000];
	size_t done = 0;

	while (done < total) {
		size_t n = total - done < sizeof(piece) ? total - done : sizeof(piece);
		int rc;

		for (size_t i = 0; i < n; i++)
			piece[i] = (uint8_t)((done + i) * 31 >> 3);
		rc = conn_write(f->a.conn, 1, piece, n);
		if (rc == 0)
			done += n;
		else
			assert_int_equal(rc, -EAGAIN);
		if (rc)
			loop_run_once(f->loop, 20);
	}
}

static void stream(struct fixture *f)
{
	f->b.grants = true;
	open_stream(f, 1);
	pour(f, 3u << 20);
	conn_end(f->a.conn, 1);
	RUN_UNTIL(f->loop, f->b.ends == 1);
	assert_int_equal(f->b.bytes, 3u << 20);
	assert_int_equal(f->a.sent, 3u << 20);
	assert_int_equal(conn_write(f->a.conn, 1, "x", 1), -EPIPE);
	conn_end(f->b.conn, 1);
	RUN_UNTIL(f->loop, f->a.ends == 1);
	assert_false(f->a.closed || f->b.closed);
}

static void test_stream(void **state)
{
	make_pair(*state);
	stream(*state);
}

static void test_stream_tls(void **state)
{
	make_tls(*state);
	stream(*state);
}

/* Without grants one window comes, one waits, and messages go on beside them. */
static void test_credit(void **state)
{
	struct fixture *f = *state;
	uint8_t byte = 0;

	make_pair(f);
	open_stream(f, 1);
	pour(f, 2 * CONN_WINDOW);
	RUN_UNTIL(f->loop, f->b.bytes == CONN_WINDOW);
	assert_int_equal(conn_write(f->a.conn, 1, &byte, 1), -EAGAIN);
	say(&f->a, json_pack("{s:s}", "op", "y"));
	RUN_UNTIL(f->loop, f->b.messages == 2);
	assert_int_equal(f->b.bytes, CONN_WINDOW);
	conn_grant(f->b.conn, 1, 1000);
	RUN_UNTIL(f->loop, f->b.bytes == CONN_WINDOW + 1000);
	assert_int_equal(f->a.sent, CONN_WINDOW + 1000);
}

static void test_stream_numbers(void **state)
{
	struct fixture *f = *state;
	struct error err = {{0}};

	make_pair(f);
	assert_int_equal(conn_next_stream(f->a.conn, 0), 1);
	assert_int_equal(conn_next_stream(f->a.conn, 1), 2);
	open_stream(f, 5);
	assert_int_equal(conn_next_stream(f->a.conn, 0), 7);
	assert_int_equal(conn_open(f->a.conn, 5, &err), -EPROTO);
	assert_int_equal(conn_open(f->a.conn, 3, &err), -EPROTO);
	assert_int_equal(conn_open(f->a.conn, 0, &err), -EPROTO);
	for (uint32_t i = 1; i < CONN_STREAMS_MAX; i++)
		assert_int_equal(conn_open(f->a.conn, 2 * i, &err), 0);
	assert_int_equal(conn_open(f->a.conn, 1u << 20, &err), -EMFILE);
}

/* -------- faults of the peer -------- */

/* The bytes end the connection, the peer hears why, and then the end. */
static void fault(struct fixture *f, const void *bytes, size_t n, int code)
{
	struct frame_reader r = {.max = FRAME_MAX};
	struct error err;
	struct frame frame = {0};
	bool heard = false;

	assert_int_equal(send(f->raw, bytes, n, MSG_NOSIGNAL), n);
	RUN_UNTIL(f->loop, f->a.closed);
	assert_int_equal(f->a.code, code);
	for (;;) {
		size_t room;
		uint8_t *p = frame_room(&r, &room);
		ssize_t got = recv(f->raw, p, room, MSG_DONTWAIT);

		if (got <= 0)
			break;
		frame_added(&r, (size_t)got);
	}
	while (frame_take(&r, &frame, &err) == 1) {
		if (frame.type != FRAME_MESSAGE)
			continue;
		heard |= json_integer_value(json_object_get(frame.message, "errno")) == -code;
		json_decref(frame.message);
	}
	frame_reader_done(&r);
	assert_true(heard);
}

#define FAULT(name, bytes, code)                          \
	static void name(void **state)                    \
	{                                                 \
		struct fixture *f = *state;               \
                                                          \
		make_raw(f);                              \
		fault(f, bytes, sizeof(bytes) - 1, code); \
	}

FAULT(test_garbage, "GET / HTTP/1.1\r\n\r\n", -EMSGSIZE)
FAULT(test_type, "\0\0\0\1\x09", -EBADMSG)
FAULT(test_json, "\0\0\0\4\1{x}", -EBADMSG)
FAULT(test_no_stream, "\0\0\0\6\2\0\0\0\1x", -EPROTO)

static void test_too_much_data(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[FRAME_HEADER + FRAME_STREAM + CONN_WINDOW + 1];
	struct error err;

	make_raw(f);
	assert_int_equal(conn_open(f->a.conn, 1, &err), 0);
	frame_header(bytes, FRAME_DATA, FRAME_STREAM + CONN_WINDOW + 1);
	bytes[FRAME_HEADER + 3] = 1;
	for (size_t done = 0; done < sizeof(bytes) && !f->a.closed;) {
		ssize_t n = send(f->raw, bytes + done, sizeof(bytes) - done,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		done += n > 0 ? (size_t)n : 0;
		loop_run_once(f->loop, 10);
	}
	RUN_UNTIL(f->loop, f->a.closed);
	assert_int_equal(f->a.code, -EPROTO);
	assert_int_equal(f->a.bytes, 0);
}

static void test_too_much_credit(void **state)
{
	struct fixture *f = *state;
	struct error err;

	make_pair(f);
	assert_int_equal(conn_open(f->a.conn, 1, &err), 0);
	say(&f->b, json_pack("{s:s, s:i, s:i}", "op", "credit", "stream", 9, "bytes", -5));
	say(&f->b, json_pack("{s:s, s:i, s:i}", "op", "credit", "stream", 1, "bytes", 1));
	RUN_UNTIL(f->loop, f->a.closed && f->b.closed);
	assert_int_equal(f->a.code, -EPROTO);
	assert_int_equal(f->b.code, -EPROTO);
	assert_non_null(strstr(f->b.reason, "more credit than a stream may have"));
}

/* Cut at each byte of a message: nothing is heard of it, and the verdict is not "in peace". */
static void test_cut(void **state)
{
	struct fixture *f = *state;
	json_t *m = json_pack("{s:s}", "op", "x");
	uint8_t *p;
	size_t n;

	assert_int_equal(frame_encode(m, FRAME_MAX, &p, &n, NULL), 0);
	json_decref(m);
	for (size_t cut = 0; cut < n; cut++) {
		make_raw(f);
		assert_int_equal(send(f->raw, p, cut, MSG_NOSIGNAL), cut);
		close(f->raw);
		RUN_UNTIL(f->loop, f->a.closed);
		assert_int_equal(f->a.code, cut ? -EPIPE : 0);
		assert_int_equal(f->a.messages, 0);
		end_done(&f->a);
	}
	f->raw = -1;
	free(p);
}

static void test_silence(void **state)
{
	struct fixture *f = *state;
	uint64_t begin = io_now_ns();

	make_raw(f);
	RUN_UNTIL(f->loop, f->a.closed);
	assert_int_equal(f->a.code, -ETIMEDOUT);
	assert_true(io_now_ns() - begin >= 300000000ull);
}

/* Both slept for longer than a peer may be silent: neither takes the other for dead. */
static void test_slept(void **state)
{
	struct fixture *f = *state;

	make_pair(f);
	for (unsigned i = 0; i < 4; i++) {
		run_for(f->loop, 100 + 13 * i);
		usleep(600000);
		run_for(f->loop, 100);
		assert_false(f->a.closed || f->b.closed);
	}
}

/* It says that it lives and does not read: little memory, and others are served meanwhile. */
static void test_no_reader(void **state)
{
	struct fixture *f = *state;
	struct end c = {0}, d = {0};
	uint8_t alive[FRAME_HEADER];
	int s[2], rc = 0;

	make_raw(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	make(f, &c, s[0], s[0], NULL);
	make(f, &d, s[1], s[1], NULL);
	frame_header(alive, FRAME_ALIVE, 0);
	for (unsigned i = 0; rc == 0 && i < 100; i++) {
		assert_int_equal(send(f->raw, alive, sizeof(alive), MSG_NOSIGNAL), sizeof(alive));
		rc = say(&f->a, big_message(100000));
		assert_true(conn_counts(f->a.conn).waiting < 2u << 20);
		assert_int_equal(say(&c, json_pack("{s:i}", "re", i)), 0);
		if (rc)
			assert_false(f->a.closed);
		loop_run_once(f->loop, 10);
	}
	assert_int_equal(rc, -ENOBUFS);
	RUN_UNTIL(f->loop, f->a.closed && d.messages >= 10);
	assert_int_equal(f->a.code, -ENOBUFS);
	assert_false(c.closed || d.closed);
	end_done(&c);
	end_done(&d);
}

/* As before, with a queue that is not full: what does not move for as long as silence lasts. */
static void test_stalled(void **state)
{
	struct fixture *f = *state;
	uint8_t alive[FRAME_HEADER];

	make_raw(f);
	frame_header(alive, FRAME_ALIVE, 0);
	assert_int_equal(say(&f->a, big_message(900000)), 0);
	for (unsigned i = 0; i < 200 && !f->a.closed; i++) {
		send(f->raw, alive, sizeof(alive), MSG_NOSIGNAL);
		run_for(f->loop, 10);
	}
	assert_true(f->a.closed);
	assert_int_equal(f->a.code, -ETIMEDOUT);
	assert_non_null(strstr(f->a.reason, "read nothing"));
}

static void test_too_long_for_us(void **state)
{
	struct fixture *f = *state;

	make_pair(f);
	assert_int_equal(say(&f->a, big_message(FRAME_MAX)), -EMSGSIZE);
	assert_int_equal(say(&f->a, json_pack("{s:s}", "op", "x")), 0);
	RUN_UNTIL(f->loop, f->b.messages == 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_socket),
		TEST(test_pipes),
		TEST(test_tls),
		TEST(test_stream),
		TEST(test_stream_tls),
		TEST(test_credit),
		TEST(test_stream_numbers),
		TEST(test_garbage),
		TEST(test_type),
		TEST(test_json),
		TEST(test_no_stream),
		TEST(test_too_much_data),
		TEST(test_too_much_credit),
		TEST(test_cut),
		TEST(test_silence),
		TEST(test_slept),
		TEST(test_no_reader),
		TEST(test_stalled),
		TEST(test_too_long_for_us),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
