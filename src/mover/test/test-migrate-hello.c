/* SPDX-License-Identifier: Apache-2.0 */
/* The first words of movers: who is let in, what a listener sees, what strangers get. */

#include "mover/test/scratch.h"

#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-hello.h"
#include "mover/test/hear.h"

#define TIMEOUT_MS 1000
#define SEEN_MAX 16384

struct side {
	pthread_t thread;
	struct channel ch;
	struct secret secret;
	struct hello hello;
	_Atomic bool cancel;
	int rc;
	struct error err;
};

/* Passes on what two sockets say, and keeps it. */
struct tap {
	pthread_t thread;
	int fd[2];
	uint8_t seen[2][SEEN_MAX];
	size_t n[2];
};

static void side_init(struct side *s, int fd, bool tls)
{
	*s = (struct side){.ch = {.fd = fd, .timeout_ms = TIMEOUT_MS},
			   .secret = {.token = "thirty-two bytes, all of them 32", .tls = tls},
			   .hello = {.kind = HELLO_DATA, .session = "session", .streams = 4}};
	s->ch.cancel[0] = &s->cancel;
	s->hello.stream = 3;
}

static void *source_main(void *arg)
{
	struct side *s = arg;

	s->rc = hello_say(&s->ch, &s->secret, &s->hello, &s->err);
	if (s->rc < 0)
		channel_close(&s->ch);
	return NULL;
}

static void *target_main(void *arg)
{
	struct side *s = arg;

	s->rc = hear_one(&s->ch, &s->secret, &s->hello, &s->err);
	if (s->rc < 0)
		channel_close(&s->ch);
	return NULL;
}

static void *tap_main(void *arg)
{
	struct tap *t = arg;
	unsigned ended = 0;

	while (ended != 3) {
		struct pollfd p[2] = {{.fd = ended & 1 ? -1 : t->fd[0], .events = POLLIN},
				      {.fd = ended & 2 ? -1 : t->fd[1], .events = POLLIN}};

		poll(p, 2, -1);
		for (unsigned i = 0; i < 2; i++) {
			uint8_t *to = t->seen[i] + t->n[i];
			ssize_t n;

			if (!p[i].revents)
				continue;
			n = read(t->fd[i], to, SEEN_MAX - t->n[i]);
			if (n <= 0 || io_write_full(t->fd[!i], to, (size_t)n) < 0) {
				ended |= 1u << i;
				shutdown(t->fd[!i], SHUT_WR);
				continue;
			}
			t->n[i] += (size_t)n;
		}
	}
	return NULL;
}

static void make_pair(int fd[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
}

static void meet(struct side *source, struct side *target)
{
	pthread_create(&source->thread, NULL, source_main, source);
	target_main(target);
	pthread_join(source->thread, NULL);
}

static void pair_init(struct side *source, struct side *target, bool source_tls, bool target_tls)
{
	int fd[2];

	make_pair(fd);
	side_init(source, fd[0], source_tls);
	side_init(target, fd[1], target_tls);
	target->hello = (struct hello){0};
}

static void pair_done(struct side *source, struct side *target)
{
	channel_close(&source->ch);
	channel_close(&target->ch);
}

static void assert_fine(const struct side *source, const struct side *target)
{
	if (source->rc || target->rc)
		fail_msg("%s / %s", source->err.text, target->err.text);
	assert_memory_equal(&source->hello, &target->hello, sizeof(source->hello));
}

/* Both ways, more than buffers hold, after the hello. */
static void test_same_token(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		struct side source, target;
		char text[6] = "";
		struct iovec iov[] = {
			{(void *)(uintptr_t) "he", 2}, {NULL, 0}, {(void *)(uintptr_t) "llo", 4}};

		pair_init(&source, &target, tls, tls);
		meet(&source, &target);
		assert_fine(&source, &target);
		assert_int_equal(source.ch.tls != NULL, tls);
		assert_int_equal(channel_send(&source.ch, iov, 3, NULL), 0);
		assert_int_equal(channel_wait(&target.ch, NULL), 0);
		assert_int_equal(channel_receive(&target.ch, text, 6, NULL), 0);
		assert_string_equal(text, "hello");
		channel_close(&source.ch);
		assert_int_equal(channel_receive(&target.ch, text, 1, NULL), -EPIPE);
		pair_done(&source, &target);
	}
}

struct flood {
	struct channel *ch;
	uint8_t *data;
	size_t n;
	int rc;
};

static void *flood_main(void *arg)
{
	struct flood *f = arg;
	struct iovec iov = {f->data, f->n};

	f->rc = channel_send(f->ch, &iov, 1, NULL);
	return NULL;
}

/* Each side sends a lot while it receives. */
static void test_both_ways(void **state)
{
	const size_t n = 8u << 20;
	uint8_t *data = malloc(n), *got[2] = {malloc(n), malloc(n)};

	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	for (unsigned tls = 0; tls < 2; tls++) {
		struct side side[2];
		struct flood flood[2];
		pthread_t thread[3];

		pair_init(&side[0], &side[1], tls, tls);
		meet(&side[0], &side[1]);
		assert_fine(&side[0], &side[1]);
		for (unsigned i = 0; i < 2; i++) {
			flood[i] = (struct flood){&side[i].ch, data, n, -1};
			pthread_create(&thread[i], NULL, flood_main, &flood[i]);
		}
		for (unsigned left[2] = {64, 64}; left[0] || left[1];)
			for (unsigned i = 0; i < 2; i++)
				if (left[i]) {
					size_t at = (64 - left[i]--) * (n / 64);

					assert_int_equal(channel_receive(&side[i].ch, got[i] + at,
									 n / 64, NULL),
							 0);
				}
		for (unsigned i = 0; i < 2; i++) {
			pthread_join(thread[i], NULL);
			assert_int_equal(flood[i].rc, 0);
			assert_memory_equal(got[i], data, n);
		}
		pair_done(&side[0], &side[1]);
	}
	free(data);
	free(got[0]);
	free(got[1]);
}

static void test_other_token(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		struct side source, target;

		pair_init(&source, &target, tls, tls);
		source.secret.token[31] ^= 1;
		meet(&source, &target);
		assert_int_equal(source.rc, -EACCES);
		assert_true(target.rc < 0);
		assert_non_null(strstr(source.err.text, "same token"));
		assert_non_null(strstr(target.err.text, "same token"));
		pair_done(&source, &target);
	}
}

static void test_other_tls(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		const char *option = tls ? "the target --tls, or the source --no-tls"
					 : "the source --tls, or the target --no-tls";
		struct side source, target;

		pair_init(&source, &target, tls, !tls);
		meet(&source, &target);
		assert_true(source.rc < 0);
		assert_int_equal(target.rc, -EPROTONOSUPPORT);
		if (!strstr(source.err.text, option) || !strstr(target.err.text, option))
			fail_msg("%s / %s", source.err.text, target.err.text);
		pair_done(&source, &target);
	}
}

/* Who listens learns no token, and what it heard opens nothing. */
static void test_listener(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		struct side source, target;
		struct tap tap = {0};
		int left[2], right[2], again[2];

		make_pair(left);
		make_pair(right);
		make_pair(again);
		side_init(&source, left[0], tls);
		side_init(&target, right[1], tls);
		tap.fd[0] = left[1];
		tap.fd[1] = right[0];
		pthread_create(&tap.thread, NULL, tap_main, &tap);
		meet(&source, &target);
		assert_fine(&source, &target);
		pair_done(&source, &target);
		pthread_join(tap.thread, NULL);
		close(left[1]);
		close(right[0]);
		assert_true(tap.n[0] > 100 && tap.n[1] > 64);
		for (unsigned i = 0; i < 2; i++)
			assert_null(memmem(tap.seen[i], tap.n[i], target.secret.token, 8));
		side_init(&target, again[1], tls);
		assert_int_equal(io_write_full(again[0], tap.seen[0], tap.n[0]), 0);
		target_main(&target);
		assert_int_equal(target.rc, -EACCES);
		close(again[0]);
	}
}

/* Says a little now and then, for ever. */
static void *drip_main(void *arg)
{
	static const uint8_t head[] = {0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3};
	int fd = *(int *)arg;

	for (unsigned i = 0; send(fd, &head[i % sizeof(head)], 1, MSG_NOSIGNAL) == 1; i++)
		usleep(10000);
	return NULL;
}

/* A stranger has a time to say who it is, however it spends that. */
static void test_slow(void **state)
{
	for (unsigned drips = 0; drips < 2; drips++) {
		struct side source, target;
		uint64_t start = io_now_ns();
		pthread_t thread;

		pair_init(&source, &target, true, true);
		target.ch.timeout_ms = 200;
		if (drips)
			pthread_create(&thread, NULL, drip_main, &source.ch.fd);
		target_main(&target);
		assert_int_equal(target.rc, -ETIMEDOUT);
		assert_true(io_now_ns() - start < 5000000000ull);
		if (drips)
			pthread_join(thread, NULL);
		pair_done(&source, &target);
	}
}

/* A cancel is seen while the other side says nothing. */
static void test_cancel(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		struct side source, target;
		uint64_t start = io_now_ns();

		pair_init(&source, &target, tls, tls);
		source.ch.timeout_ms = 60000;
		pthread_create(&source.thread, NULL, source_main, &source);
		usleep(20000);
		source.cancel = true;
		pthread_join(source.thread, NULL);
		assert_int_equal(source.rc, -ECANCELED);
		assert_true(io_now_ns() - start < 5000000000ull);
		pair_done(&source, &target);
	}
}

/* A server that has no key but a certificate that it made itself. */
static void *impostor_main(void *arg)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	SSL *ssl;

	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	X509_sign(certificate, key, EVP_sha256());
	SSL_CTX_use_certificate(context, certificate);
	SSL_CTX_use_PrivateKey(context, key);
	ssl = SSL_new(context);
	SSL_set_fd(ssl, *(int *)arg);
	SSL_accept(ssl);
	SSL_free(ssl);
	X509_free(certificate);
	EVP_PKEY_free(key);
	SSL_CTX_free(context);
	return NULL;
}

static void test_impostor(void **state)
{
	struct side source, target;
	pthread_t thread;

	pair_init(&source, &target, true, true);
	pthread_create(&thread, NULL, impostor_main, &target.ch.fd);
	source_main(&source);
	assert_int_equal(source.rc, -EACCES);
	assert_non_null(strstr(source.err.text, "does not know the token"));
	pthread_join(thread, NULL);
	pair_done(&source, &target);
}

/* Who has not said who it is cannot make us take much. */
static void test_large(void **state)
{
	static const uint8_t body[100000];
	struct side source, target;

	pair_init(&source, &target, false, false);
	/* As much of it as fits into the socket is enough. */
	source.ch.timeout_ms = 1;
	message_send(&source.ch, MESSAGE_STATE, body, sizeof(body), NULL);
	target_main(&target);
	assert_int_equal(target.rc, -EBADMSG);
	assert_non_null(strstr(target.err.text, "somebody unknown"));
	pair_done(&source, &target);
}

/* Things that are no mover at all, on either side. */
static void test_strangers(void **state)
{
	static const char *const words[] = {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
					    "\x16\x03\x01\x00\x05hello",
					    "\x15\x03\x03\x00\x02\x02\x28", ""};

	for (unsigned i = 0; i < ARRAY_SIZE(words) * 4; i++) {
		const char *word = words[i / 4];
		struct side source, target;
		bool server = i & 1;
		struct side *s = server ? &target : &source;

		pair_init(&source, &target, i & 2, i & 2);
		assert_int_equal(write(server ? source.ch.fd : target.ch.fd, word, strlen(word)),
				 (ssize_t)strlen(word));
		shutdown(server ? source.ch.fd : target.ch.fd, SHUT_WR);
		if (server)
			target_main(s);
		else
			source_main(s);
		assert_true(s->rc < 0 && s->err.text[0]);
		pair_done(&source, &target);
	}
}

static void test_default(void **state)
{
	assert_true(hello_wants_tls("tcp:node1:7000"));
	assert_false(hello_wants_tls("unix:/run/x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_token),  cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_other_token), cmocka_unit_test(test_other_tls),
		cmocka_unit_test(test_listener),    cmocka_unit_test(test_slow),
		cmocka_unit_test(test_cancel),	    cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_impostor),    cmocka_unit_test(test_large),
		cmocka_unit_test(test_default),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
