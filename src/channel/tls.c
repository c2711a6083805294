/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 with a pre-shared key, by OpenSSL. */

#include "channel/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define RECORD (1u << 14)     /* bytes that a record of TLS has at most */
#define READ_AHEAD (8u << 14) /* bytes: some whole records of TLS at a time */
/* RFC 8446, 5.5: AES-GCM encrypts up to 2^24.5 full records safely under one key. */
#define RECORDS_MAX (1u << 22)

struct tls {
	SSL_CTX *context;
	SSL *ssl;
	pthread_mutex_t mutex; /* an SSL object is for one thread at a time */
	const char *identity;
	uint8_t key[TLS_KEY];
	uint64_t sent;	  /* records, under the present key; at least as many as there were */
	uint64_t limit;	  /* of them */
	uint64_t updates; /* keys that the peer has gone on to */
};

/* A session made of our key, as RFC 8446, 2.2 has external keys. */
static SSL_SESSION *make_session(SSL *ssl)
{
	static const uint8_t suite[] = {0x13, 0x01}; /* TLS_AES_128_GCM_SHA256 */
	const struct tls *tls = SSL_get_app_data(ssl);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && SSL_SESSION_set1_master_key(session, tls->key, TLS_KEY) &&
	    SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suite)) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int client_key(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *n,
		      SSL_SESSION **session)
{
	const struct tls *tls = SSL_get_app_data(ssl);

	*session = make_session(ssl);
	*id = (const unsigned char *)tls->identity;
	*n = strlen(tls->identity);
	return *session != NULL;
}

/* Without a session the handshake fails: there is nothing else to know each other by. */
static int server_key(SSL *ssl, const unsigned char *id, size_t n, SSL_SESSION **session)
{
	const struct tls *tls = SSL_get_app_data(ssl);

	*session = NULL;
	if (n == strlen(tls->identity) && !memcmp(id, tls->identity, n))
		*session = make_session(ssl);
	return 1;
}

/* The peer sends under a new key from now on (RFC 8446, 4.6.3). */
static void on_message(int sends, int version, int type, const void *buf, size_t n, SSL *ssl,
		       void *arg)
{
	const uint8_t *message = buf;
	struct tls *tls = arg;

	if (!sends && type == SSL3_RT_HANDSHAKE && n && message[0] == SSL3_MT_KEY_UPDATE)
		tls->updates++;
}

static bool set_up(struct tls *tls, int fd, bool server)
{
	SSL_CTX *c = tls->context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (!c || !SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") ||
	    !SSL_CTX_set_num_tickets(c, 0))
		return false;
	SSL_CTX_set_options(c, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_default_read_buffer_len(c, READ_AHEAD);
	if (server)
		SSL_CTX_set_psk_find_session_callback(c, server_key);
	else
		SSL_CTX_set_psk_use_session_callback(c, client_key);
	tls->ssl = SSL_new(c);
	if (!tls->ssl || !SSL_set_app_data(tls->ssl, tls) || !SSL_set_fd(tls->ssl, fd))
		return false;
	SSL_set_msg_callback(tls->ssl, on_message);
	SSL_set_msg_callback_arg(tls->ssl, tls);
	if (server)
		SSL_set_accept_state(tls->ssl);
	else
		SSL_set_connect_state(tls->ssl);
	return true;
}

int tls_create(int fd, bool server, const char *identity, const uint8_t key[TLS_KEY],
	       struct tls **ret, struct error *err)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		free(tls);
		return error_errno(err, -errno, "cannot set a socket up");
	}
	if (!tls)
		return error_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&tls->mutex, NULL);
	tls->identity = identity;
	memcpy(tls->key, key, TLS_KEY);
	tls->limit = RECORDS_MAX;
	if (!set_up(tls, fd, server)) {
		tls_destroy(tls);
		return error_set(err, -ENOMEM, "TLS cannot be set up");
	}
	*ret = tls;
	return 0;
}

void tls_destroy(struct tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	SSL_CTX_free(tls->context);
	OPENSSL_cleanse(tls->key, TLS_KEY);
	pthread_mutex_destroy(&tls->mutex);
	free(tls);
}

/* What came of a call that returned rc. */
static ssize_t result(struct tls *tls, int rc, short *wait, struct error *err)
{
	int code = errno;
	const char *reason;

	switch (SSL_get_error(tls->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		*wait = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*wait = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return code ? error_errno(err, -code, "the connection") : 0;
	default:
		if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER)
			return error_set(err, -EPROTONOSUPPORT, "the peer speaks without TLS");
		reason = ERR_reason_error_string(ERR_peek_error());
		return error_set(err, -EPROTO, "TLS: %s", reason ? reason : "unknown error");
	}
}

ssize_t tls_handshake(struct tls *tls, short *wait, struct error *err)
{
	int rc;

	SCOPED_LOCK(&tls->mutex);
	ERR_clear_error();
	errno = 0;
	rc = SSL_do_handshake(tls->ssl);
	/* A server may decline our key and show a certificate, which anybody can make. */
	if (rc > 0 && !SSL_session_reused(tls->ssl))
		return error_set(err, -EPROTO, "TLS: the peer does not know the token");
	return rc > 0 ? 1 : result(tls, rc, wait, err);
}

ssize_t tls_receive(struct tls *tls, void *buf, size_t n, short *wait, struct error *err)
{
	size_t done = 0;
	int rc;

	SCOPED_LOCK(&tls->mutex);
	ERR_clear_error();
	errno = 0;
	rc = SSL_read_ex(tls->ssl, buf, n, &done);
	return rc > 0 ? (ssize_t)done : result(tls, rc, wait, err);
}

void tls_limit(struct tls *tls, uint64_t records)
{
	tls->limit = records;
}

uint64_t tls_updates(struct tls *tls)
{
	SCOPED_LOCK(&tls->mutex);
	return tls->updates;
}

static bool has_room(const struct tls *tls)
{
	struct pollfd p = {.fd = SSL_get_fd(tls->ssl), .events = POLLOUT};

	return poll(&p, 1, 0) > 0 && p.revents == POLLOUT;
}

/*
 * Between records, and where the socket takes the little that is to be said at once: while that
 * waits nothing can be received, and two ends that wait so would wait for ever. Each side counts
 * what it sends; the peer is not asked to do the same, as it does that by itself.
 */
static int renew_key(struct tls *tls, struct error *err)
{
	if (tls->sent < tls->limit || !has_room(tls))
		return 0;
	if (!SSL_key_update(tls->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
		return error_set(err, -EPROTO, "TLS: no new key");
	SSL_do_handshake(tls->ssl);
	tls->sent = 0;
	return 0;
}

ssize_t tls_send(struct tls *tls, const void *buf, size_t n, short *wait, struct error *err)
{
	size_t done = 0;
	int rc;

	SCOPED_LOCK(&tls->mutex);
	ERR_clear_error();
	errno = 0;
	rc = SSL_write_ex(tls->ssl, buf, n, &done);
	if (rc <= 0)
		return result(tls, rc, wait, err);
	tls->sent += (done + RECORD - 1) / RECORD;
	rc = renew_key(tls, err);
	return rc < 0 ? rc : (ssize_t)done;
}

bool tls_pending(struct tls *tls)
{
	SCOPED_LOCK(&tls->mutex);
	return SSL_has_pending(tls->ssl);
}
