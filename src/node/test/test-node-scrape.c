/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics over HTTP: whole answers, refusals, readers that are slow, silent or too many. */

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/loop.h"
#include "node/scrape.h"
#include "node/test/made.h"

#define BIG (4u << 20) /* more than a socket holds */

struct bench {
	struct loop *loop;
	struct scrape *s;
	unsigned asked;
	int code;
};

static int text(void *arg, char **ret, struct error *err)
{
	struct bench *b = arg;

	b->asked++;
	if (b->code)
		return error_set(err, b->code, "no text today");
	*ret = malloc(BIG + 1);
	memset(*ret, 'm', BIG);
	(*ret)[BIG] = 0;
	return 0;
}

static void begin(struct bench *b, const char *where)
{
	struct error err;

	assert_int_equal(loop_create(&b->loop), 0);
	if (scrape_create(b->loop, where, text, b, &b->s, &err))
		fail_msg("%s", err.text);
}

static void end(struct bench *b)
{
	scrape_destroy(b->s);
	loop_destroy(b->loop);
}

static int dial(const struct bench *b)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)scrape_port(b->s)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

/* What comes until the end, at most size - 1 bytes; -1: nothing came for a second. */
static ssize_t hear(struct bench *b, int fd, char *ret, size_t size)
{
	uint64_t limit = io_now_ns() + 1000000000ull;
	size_t used = 0;

	while (io_now_ns() < limit) {
		ssize_t n = read(fd, ret + used, size - 1 - used);

		if (n > 0) {
			used += (size_t)n;
			limit = io_now_ns() + 1000000000ull;
		}
		ret[used] = 0;
		if (n == 0 || used == size - 1 || (n < 0 && errno == ECONNRESET))
			return (ssize_t)used;
		loop_run_once(b->loop, 1);
	}
	return -1;
}

static ssize_t get(struct bench *b, int fd, const char *request, char *ret, size_t size)
{
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	return hear(b, fd, ret, size);
}

static void test_answers(void **state)
{
	static char got[BIG + 1024];
	struct bench b = {0};
	int fd;

	begin(&b, "0");
	fd = dial(&b);
	assert_true(get(&b, fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", got, sizeof(got)) >
		    BIG);
	assert_non_null(strstr(got, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(got, "version=0.0.4"));
	assert_int_equal(strlen(strstr(got, "\r\n\r\n") + 4), BIG);
	close(fd);
	fd = dial(&b);
	assert_true(get(&b, fd, "GET /metricsx HTTP/1.1\r\n\r\n", got, sizeof(got)) > 0);
	assert_non_null(strstr(got, " 404 "));
	close(fd);
	fd = dial(&b);
	assert_true(get(&b, fd, "POST /metrics HTTP/1.1\r\n\r\n", got, sizeof(got)) > 0);
	assert_non_null(strstr(got, " 405 "));
	close(fd);
	b.code = -EIO;
	fd = dial(&b);
	assert_true(get(&b, fd, "GET /metrics?x HTTP/1.1\r\n\r\n", got, sizeof(got)) > 0);
	assert_non_null(strstr(got, " 500 "));
	assert_non_null(strstr(got, "no text today"));
	assert_int_equal(b.asked, 2);
	close(fd);
	end(&b);
}

static void test_strange(void **state)
{
	static char junk[20000], got[4096];
	struct bench b = {0};
	int fd, many[24];

	begin(&b, "127.0.0.1:0");
	memset(junk, 'j', sizeof(junk) - 1);
	fd = dial(&b);
	assert_int_equal(get(&b, fd, junk, got, sizeof(got)), 0);
	close(fd);
	fd = dial(&b);
	assert_int_equal(send(fd, "GET\0 /\r\n\r\n", 10, MSG_NOSIGNAL), 10);
	assert_int_equal(hear(&b, fd, got, sizeof(got)), 0);
	close(fd);
	/* Many who say nothing do not end it; when they have gone the next is served. */
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = dial(&b);
		loop_run_once(b.loop, 0);
	}
	for (unsigned i = 0; i < 200; i++)
		loop_run_once(b.loop, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		close(many[i]);
	fd = dial(&b);
	assert_true(get(&b, fd, "GET /metrics HTTP/1.1\r\n\r\n", got, sizeof(got)) > 0);
	close(fd);
	assert_int_equal(b.asked, 1);
	end(&b);
}

static void test_where(void **state)
{
	CLEANUP_FREE char *path = io_format("%s/metrics", (char *)*state);
	struct bench b = {0};
	struct stat st;
	struct error err;

	begin(&b, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(scrape_port(b.s), 0);
	end(&b);
	assert_int_equal(access(path, F_OK), -1);
	begin(&b, "[::1]:0");
	end(&b);
	assert_int_equal(scrape_create(NULL, "host:", text, &b, &b.s, &err), -EINVAL);
	assert_int_equal(scrape_create(NULL, "99999", text, &b, &b.s, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_strange),
		cmocka_unit_test_setup_teardown(test_where, made_set_up, made_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
