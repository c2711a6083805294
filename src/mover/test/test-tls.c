/* SPDX-License-Identifier: Apache-2.0 */
/* Channels by TLS: both ends change their keys, and what comes is what was sent. */

#include "mover/test/scratch.h"

#include <pthread.h>
#include <sys/socket.h>

#include "mover/channel.h"
#include "channel/tls.h"

#define PIECE (64u << 10)
#define PIECES 128u
#define RECORDS (PIECES * PIECE >> 14) /* of TLS, when all are full */
#define LIMIT 3

struct end {
	struct channel ch;
	bool server;
	unsigned limit;
	int rc;
	struct error err;
	pthread_t thread;
};

static int send_all(struct end *e)
{
	uint8_t *piece = malloc(PIECE);
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < PIECES; i++) {
		struct iovec iov = {piece, PIECE};

		memset(piece, (int)(i ^ e->server), PIECE);
		rc = channel_send(&e->ch, &iov, 1, &e->err);
	}
	free(piece);
	return rc;
}

static void *sender_main(void *arg)
{
	struct end *e = arg;

	e->rc = send_all(e);
	return NULL;
}

static void receive_all(struct end *e)
{
	uint8_t *piece = malloc(PIECE);

	for (unsigned i = 0; i < PIECES; i++) {
		struct error err = {{0}};

		if (channel_receive(&e->ch, piece, PIECE, &err))
			fail_msg("piece %u: %s", i, err.text);
		assert_int_equal(piece[0], (uint8_t)(i ^ !e->server));
		assert_memory_equal(piece, piece + 1, PIECE - 1);
	}
	free(piece);
}

static void *secure_main(void *arg)
{
	static const uint8_t key[CHANNEL_KEY] = {1, 2, 3};
	struct end *e = arg;

	e->rc = channel_secure(&e->ch, e->server, key, &e->err);
	if (e->rc == 0 && e->limit)
		tls_limit(e->ch.tls, e->limit);
	return NULL;
}

static void both(struct end e[2], void *(*fn)(void *))
{
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&e[i].thread, NULL, fn, &e[i]);
}

static void join(struct end e[2])
{
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(e[i].thread, NULL);
		if (e[i].rc)
			fail_msg("%s", e[i].err.text);
	}
}

static void *receiver_main(void *arg)
{
	receive_all(arg);
	return NULL;
}

/* Both send at once; limits of records under one key (0: the usual). */
static void exchange(unsigned a, unsigned b)
{
	struct end e[2] = {{.limit = a}, {.limit = b, .server = true}};
	pthread_t receiver;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	for (unsigned i = 0; i < 2; i++)
		e[i].ch = (struct channel){.fd = fd[i], .timeout_ms = 20000};
	both(e, secure_main);
	join(e);
	both(e, sender_main);
	pthread_create(&receiver, NULL, receiver_main, &e[0]);
	receive_all(&e[1]);
	pthread_join(receiver, NULL);
	join(e);
	/* Later than at the limit where the socket is full then. */
	assert_in_range(tls_updates(e[1].ch.tls), a ? 2 : 0, a ? RECORDS / a : 0);
	assert_in_range(tls_updates(e[0].ch.tls), b ? 2 : 0, b ? RECORDS / b : 0);
	for (unsigned i = 0; i < 2; i++)
		channel_close(&e[i].ch);
}

static void test_keys(void **state)
{
	exchange(LIMIT, LIMIT);
	exchange(1, 0);
	exchange(0, 64);
}

static void test_few(void **state)
{
	exchange(0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
