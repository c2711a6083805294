/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines from a stream that cuts them anywhere, and from peers that send anything. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"

struct fixture {
	int us, peer;
	struct jsonline line;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int s[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s))
		return -1;
	f->us = s[0];
	f->peer = s[1];
	*state = f;
	return fcntl(f->us, F_SETFL, O_NONBLOCK);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	jsonline_done(&f->line);
	close(f->us);
	if (f->peer >= 0)
		close(f->peer);
	free(f);
	return 0;
}

static void send_text(struct fixture *f, const char *text)
{
	assert_int_equal(io_write_full(f->peer, text, strlen(text)), 0);
}

/* Takes a line whose "n" is n. */
static void take(struct fixture *f, int n)
{
	json_t *value = NULL;
	struct error err = {0};

	assert_int_equal(jsonline_take(&f->line, &value, &err), 0);
	assert_int_equal(json_integer_value(json_object_get(value, "n")), n);
	json_decref(value);
}

static void test_partial(void **state)
{
	struct fixture *f = *state;
	const char *text = "{\"n\": 1}\n";
	json_t *value;

	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 0);
	for (const char *p = text; *p; p++) {
		assert_int_equal(jsonline_take(&f->line, &value, NULL), -EAGAIN);
		assert_int_equal(io_write_full(f->peer, p, 1), 0);
		assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), *p == '\n');
	}
	take(f, 1);
	assert_int_equal(jsonline_take(&f->line, &value, NULL), -EAGAIN);
}

static void test_several(void **state)
{
	struct fixture *f = *state;
	json_t *value;

	send_text(f, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\"");
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 1);
	/* A whole line is there: nothing more is read. */
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 1);
	for (int n = 1; n <= 3; n++)
		take(f, n);
	assert_int_equal(jsonline_take(&f->line, &value, NULL), -EAGAIN);
	send_text(f, ":4}\n");
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 1);
	take(f, 4);
	/* What comes before the end of the stream counts; a line without end does not. */
	send_text(f, "{\"n\":5}\n{\"n\":6}");
	close(f->peer);
	f->peer = -1;
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 1);
	take(f, 5);
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), -EPIPE);
}

static void test_garbage(void **state)
{
	static const char *const bad[] = {
		"",
		"hello",
		"{",
		"[1, 2]",
		"1",
		"null",
		"{\"a\":}",
		"{} {}",
		"{\"a\":1,}",
		"{\"a\":1,\"a\":2}",
		"{'a':1}",
		"\xff\xfe",
		"{\"\xff\":1}",
		"{\"a\":1e999}",
		"{\"\\u0000\":1}",
	};
	struct fixture *f = *state;
	char deep[50000];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *value = NULL;
		struct error err = {0};

		send_text(f, bad[i]);
		send_text(f, "\n{\"n\":7}\n");
		while (!jsonline_read(&f->line, f->us, JSONLINE_MAX))
			;
		if (jsonline_take(&f->line, &value, &err) != -EBADMSG)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_int_equal(strncmp(err.text, "not ", 4), 0);
		assert_null(value);
		while (!jsonline_read(&f->line, f->us, JSONLINE_MAX))
			;
		take(f, 7);
	}
	/* A NUL does not end a line early, deep nesting does not end us. */
	assert_int_equal(io_write_full(f->peer, "{}\0{}\n", 6), 0);
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), 1);
	assert_int_equal(jsonline_take(&f->line, &(json_t *){NULL}, NULL), -EBADMSG);
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "{\"a\":", 5);
	deep[sizeof(deep) - 1] = '\n';
	assert_int_equal(io_write_full(f->peer, deep, sizeof(deep)), 0);
	while (!jsonline_read(&f->line, f->us, JSONLINE_MAX))
		;
	assert_int_equal(jsonline_take(&f->line, &(json_t *){NULL}, NULL), -EBADMSG);
}

/* Sends a line of len bytes with its newline; what reading it gives in the end. */
static int read_long(struct fixture *f, size_t len, size_t max)
{
	CLEANUP_FREE char *text = malloc(len);
	size_t sent = 0;
	int r = 0;

	memset(text, ' ', len);
	text[0] = '{';
	text[len - 2] = '}';
	text[len - 1] = '\n';
	while (!r) {
		size_t n = len - sent < 1000 ? len - sent : 1000;

		if (n)
			assert_int_equal(io_write_full(f->peer, text + sent, n), 0);
		sent += n;
		r = jsonline_read(&f->line, f->us, max);
	}
	return r;
}

static void test_too_long(void **state)
{
	struct fixture *f = *state;
	json_t *value;

	assert_int_equal(read_long(f, JSONLINE_MAX, JSONLINE_MAX), 1);
	assert_int_equal(jsonline_take(&f->line, &value, NULL), 0);
	json_decref(value);
	assert_int_equal(read_long(f, 2 * JSONLINE_MAX, JSONLINE_MAX), -EMSGSIZE);
	assert_int_equal(jsonline_read(&f->line, f->us, JSONLINE_MAX), -EMSGSIZE);
	assert_true(f->line.room <= JSONLINE_MAX);
}

/* Answers one request with {"n": its n + 1}. */
static void *serve(void *arg)
{
	struct fixture *f = arg;
	json_t *request = NULL, *answer;

	while (jsonline_read(&f->line, f->peer, JSONLINE_MAX) == 0)
		;
	jsonline_take(&f->line, &request, NULL);
	answer = json_pack("{s:i, s:s*}", "n",
			   json_integer_value(json_object_get(request, "n")) + 1, "none", NULL);
	jsonline_write(f->peer, answer);
	json_decref(answer);
	json_decref(request);
	return NULL;
}

static void test_call(void **state)
{
	struct fixture *f = *state;
	json_t *request = json_pack("{s:i}", "n", 41), *answer = NULL;
	struct error err = {0};
	pthread_t thread;

	fcntl(f->us, F_SETFL, 0);
	pthread_create(&thread, NULL, serve, f);
	assert_int_equal(jsonline_call(f->us, request, &answer, &err), 0);
	pthread_join(thread, NULL);
	assert_int_equal(json_integer_value(json_object_get(answer, "n")), 42);
	json_decref(answer);
	/* Who refuses us says so and hangs up before we ask. */
	send_text(f, "{\"n\":13}\n");
	close(f->peer);
	f->peer = -1;
	assert_int_equal(jsonline_call(f->us, request, &answer, &err), 0);
	assert_int_equal(json_integer_value(json_object_get(answer, "n")), 13);
	json_decref(answer);
	assert_int_equal(jsonline_call(f->us, request, &answer, &err), -EPIPE);
	assert_string_equal(err.text, "no answer on the control socket: Broken pipe");
	json_decref(request);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(partial), TEST(several), TEST(garbage), TEST(too_long), TEST(call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
