/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of missing pages and requests: what is sent comes, what cannot be is refused. */

#include "mover/test/scratch.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "lib/wire.h"
#include "mover/migrate-set.h"

#define MEMORY ((600ull << 20) + 5 * PAGE_BYTES) /* its last chunk has 5 pages */
#define LARGE (40ull << 30)			 /* more than one record */

struct ends {
	struct channel a, b;
	uint64_t memory;
	const uint64_t *missing, *zero;
};

static void *send_main(void *arg)
{
	struct ends *e = arg;
	struct error err;

	assert_int_equal(missing_send(&e->a, e->memory, e->missing, e->zero, &err), 0);
	return NULL;
}

static void open_ends(struct ends *e)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	e->a = (struct channel){.fd = fd[0], .timeout_ms = 5000};
	e->b = (struct channel){.fd = fd[1], .timeout_ms = 5000};
}

static void test_whole(void **state)
{
	static const uint64_t sizes[] = {PAGE_BYTES, MEMORY, LARGE};

	for (unsigned i = 0; i < 3; i++) {
		uint64_t chunks = index_chunks(sizes[i]), n = chunks * 8;
		uint64_t *missing = calloc(4, n), *zero = missing + chunks;
		uint64_t *got = zero + chunks, *got_zero = got + chunks;
		struct ends e = {.memory = sizes[i], .missing = missing, .zero = zero};
		struct error err = {{0}};
		pthread_t thread;

		for (uint64_t c = 0; c < chunks; c++) {
			missing[c] = (c * 0x9e3779b97f4a7c15) & index_chunk_mask(sizes[i], c);
			zero[c] = missing[c] & (c << 7);
		}
		open_ends(&e);
		assert_int_equal(pthread_create(&thread, NULL, send_main, &e), 0);
		if (missing_receive(&e.b, sizes[i], got, got_zero, &err))
			fail_msg("%s", err.text);
		pthread_join(thread, NULL);
		assert_memory_equal(missing, got, n);
		assert_memory_equal(zero, got_zero, n);
		channel_close(&e.a);
		channel_close(&e.b);
		free(missing);
	}
}

/* A record of words; whether it is taken. */
static bool takes(uint64_t memory, uint64_t next, const uint64_t *words, unsigned n)
{
	uint64_t chunks = index_chunks(memory);
	uint64_t *missing = calloc(2, chunks * 8);
	uint8_t *body = calloc(1, n * 8 + 1);
	struct wire_writer w = wire_writer(body, n * 8);
	struct message m = {.type = MESSAGE_MISSING, .length = n * 8, .body = body};
	struct error err = {{0}};
	uint64_t before = next;
	int rc;

	for (unsigned i = 0; i < n; i++)
		wire_put_u64(&w, words[i]);
	rc = missing_take(&m, memory, &next, missing, missing + chunks, &err);
	assert_true(rc == 0 || (rc == -EBADMSG && err.text[0] && next == before));
	free(missing);
	free(body);
	return rc == 0;
}

#define TAKES(memory, next, ...)                             \
	takes(memory, next, (const uint64_t[]){__VA_ARGS__}, \
	      sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

static void test_refused(void **state)
{
	const uint64_t memory = 3 * CHUNK_BYTES + 5 * PAGE_BYTES;

	assert_true(TAKES(memory, 0, 0, 1, 1));
	assert_true(TAKES(memory, 3, 3, 31, 3));
	assert_true(TAKES(memory, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
	assert_false(TAKES(memory, 0, 0));		   /* nothing */
	assert_false(TAKES(memory, 0, 0, 1));		   /* half a pair */
	assert_false(TAKES(memory, 0, 1, 1, 0));	   /* out of order */
	assert_false(TAKES(memory, 2, 0, 1, 0));	   /* again */
	assert_false(TAKES(memory, 4, 4, 1, 0));	   /* behind the end */
	assert_false(TAKES(memory, 3, 3, 1, 0, 1, 0));	   /* over the end */
	assert_false(TAKES(memory, 0, ~0ull, 1, 0));	   /* far away */
	assert_false(TAKES(memory, 3, 3, 1ull << 5, 0));   /* a page that is not */
	assert_false(TAKES(memory, 0, 0, 2, 1));	   /* zero, but not missing */
	assert_false(TAKES(memory, 3, 3, 31, 1ull << 63)); /* as well */
}

static bool asks(uint64_t memory, uint64_t chunk, uint64_t pages, unsigned length)
{
	uint8_t body[24] = {0};
	struct wire_writer w = wire_writer(body, sizeof(body));
	struct message m = {.type = MESSAGE_REQUEST, .length = length, .body = body};
	uint64_t c = 77, p = 77;
	struct error err = {{0}};
	int rc;

	wire_put_u64(&w, chunk);
	wire_put_u64(&w, pages);
	rc = request_take(&m, memory, &c, &p, &err);
	assert_true(rc == 0 ? c == chunk && p == pages : rc == -EBADMSG && c == 77 && err.text[0]);
	return rc == 0;
}

static void test_requests(void **state)
{
	const uint64_t memory = 3 * CHUNK_BYTES + 5 * PAGE_BYTES;

	assert_true(asks(memory, 0, 1, 16));
	assert_true(asks(memory, 2, ~0ull, 16));
	assert_true(asks(memory, 3, 31, 16));
	assert_false(asks(memory, 3, 32, 16));
	assert_false(asks(memory, 4, 1, 16));
	assert_false(asks(memory, ~0ull, 1, 16));
	assert_false(asks(memory, 0, 0, 16));
	assert_false(asks(memory, 0, 1, 8));
	assert_false(asks(memory, 0, 1, 24));
	assert_false(asks(memory, 0, 1, 0));
}

/* A receiver that is cancelled loses no record: who says farewell after that reads them all. */
static void test_cancelled(void **state)
{
	_Atomic bool cancel = true;
	struct error err = {{0}};
	uint64_t chunk, pages;
	struct message m;
	struct ends e;

	open_ends(&e);
	e.b.cancel[0] = &cancel;
	assert_int_equal(request_send(&e.a, 3, 5, &err), 0);
	assert_int_equal(message_receive(&e.b, &m, &err), -ECANCELED);
	cancel = false;
	assert_int_equal(message_receive(&e.b, &m, &err), 0);
	assert_int_equal(request_take(&m, MEMORY, &chunk, &pages, &err), 0);
	assert_int_equal(chunk, 3);
	message_done(&m);
	channel_close(&e.a);
	channel_close(&e.b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_cancelled),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
