/* SPDX-License-Identifier: Apache-2.0 */
/* The first words on a connection between movers. */

#include "mover/migrate-hello.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "channel/key.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/wire.h"

#define MAGIC "WISPMIGR"
#define HELLO_SIZE (8 + 4 + 4 + SESSION_SIZE + NONCE_SIZE + 4 + 4)
#define TLS_RECORD 0x16 /* the first byte of a handshake, RFC 8446, 5.1 */

/* A key for one use. The token is random all over, so there is nothing to extract. */
static int derive(const struct secret *secret, const char *use, uint8_t ret[KEY_SIZE],
		  struct error *err)
{
	char info[64];
	int n = snprintf(info, sizeof(info), "wisp migration 1 %s", use);

	return key_expand(secret->token, info, (size_t)n, ret, err);
}

/* What a side answers to both nonces and all else that the hello says. */
static int prove(const struct secret *secret, const char *side, const uint8_t hello[HELLO_SIZE],
		 const uint8_t nonce[NONCE_SIZE], uint8_t ret[KEY_SIZE], struct error *err)
{
	uint8_t key[KEY_SIZE], both[HELLO_SIZE + NONCE_SIZE];
	int rc = derive(secret, side, key, err);

	memcpy(both, hello, HELLO_SIZE);
	memcpy(both + HELLO_SIZE, nonce, NONCE_SIZE);
	return rc < 0 ? rc : key_hmac(key, KEY_SIZE, both, sizeof(both), ret, err);
}

static void hello_encode(uint8_t body[HELLO_SIZE], const struct hello *hello,
			 const uint8_t nonce[NONCE_SIZE])
{
	struct wire_writer w = wire_writer(body, HELLO_SIZE);

	wire_put_bytes(&w, MAGIC, 8);
	wire_put_u32(&w, MIGRATE_VERSION);
	wire_put_u32(&w, hello->kind);
	wire_put_bytes(&w, hello->session, SESSION_SIZE);
	wire_put_bytes(&w, nonce, NONCE_SIZE);
	wire_put_u32(&w, hello->stream);
	wire_put_u32(&w, hello->streams);
}

static int hello_decode(const struct message *m, struct hello *ret, struct error *err)
{
	struct wire_reader r = wire_reader(m->body, m->length);
	const void *magic = wire_get_bytes(&r, 8);
	uint32_t version = wire_get_u32(&r), kind = wire_get_u32(&r);
	const void *session = wire_get_bytes(&r, SESSION_SIZE);
	const void *nonce = wire_get_bytes(&r, NONCE_SIZE);
	uint32_t stream = wire_get_u32(&r), streams = wire_get_u32(&r);

	if (!magic || memcmp(magic, MAGIC, 8))
		return error_set(err, -EBADMSG, "the peer is no mover of Wisp");
	if (version != MIGRATE_VERSION)
		return error_set(err, -EPROTONOSUPPORT, "the peer speaks version %" PRIu32,
				 version);
	if (!wire_done(&r) || !nonce || kind >= HELLO_KINDS || !streams ||
	    streams > MIGRATE_STREAMS || stream >= streams)
		return error_set(err, -EBADMSG, "a hello that cannot be");
	ret->kind = kind;
	memcpy(ret->session, session, SESSION_SIZE);
	ret->stream = stream;
	ret->streams = streams;
	return 0;
}

static int make_nonce(uint8_t nonce[NONCE_SIZE], struct error *err)
{
	return getrandom(nonce, NONCE_SIZE, 0) == NONCE_SIZE
		       ? 0
		       : error_errno(err, -errno, "no random numbers");
}

static int explain_tls(int rc, struct error *err)
{
	if (rc == -EPROTO)
		return error_prefix(err, -EACCES, "the two sides have not the same token");
	if (rc == -EPROTONOSUPPORT)
		return error_set(err, rc,
				 "the target speaks without TLS: give the target --tls, or the "
				 "source --no-tls");
	return rc;
}

static int start_tls(struct channel *ch, const struct secret *secret, struct error *err)
{
	uint8_t key[KEY_SIZE];
	int rc = derive(secret, "tls", key, err);

	return rc < 0 ? rc : explain_tls(channel_secure(ch, false, key, err), err);
}

/* The source's proof, after the target's was right. */
static int answer(struct channel *ch, const struct secret *secret, const uint8_t hello[HELLO_SIZE],
		  const struct message *m, struct error *err)
{
	static const char reason[] = "the two sides have not the same token";
	uint8_t proof[KEY_SIZE];
	int rc;

	if (m->length != NONCE_SIZE + KEY_SIZE)
		return error_set(err, -EBADMSG, "a challenge that cannot be");
	rc = prove(secret, "target", hello, m->body, proof, err);
	if (rc == 0 && !token_equal(proof, m->body + NONCE_SIZE)) {
		message_send(ch, MESSAGE_ABORT, reason, strlen(reason), NULL);
		return error_set(err, -EACCES, "%s", reason);
	}
	if (rc == 0)
		rc = prove(secret, "source", hello, m->body, proof, err);
	return rc < 0 ? rc : message_send(ch, MESSAGE_PROOF, proof, KEY_SIZE, err);
}

static int say(struct channel *ch, const struct secret *secret, const struct hello *hello,
	       struct error *err)
{
	uint8_t nonce[NONCE_SIZE], body[HELLO_SIZE];
	struct message m = {0};
	int rc = secret->tls ? start_tls(ch, secret, err) : 0;

	if (rc == 0)
		rc = make_nonce(nonce, err);
	if (rc < 0)
		return rc;
	hello_encode(body, hello, nonce);
	rc = message_send(ch, MESSAGE_HELLO, body, sizeof(body), err);
	if (rc == 0)
		rc = message_expect(ch, MESSAGE_CHALLENGE, &m, err);
	if (rc == 0)
		rc = answer(ch, secret, body, &m, err);
	message_done(&m);
	return rc;
}

int hello_say(struct channel *ch, const struct secret *secret, const struct hello *hello,
	      struct error *err)
{
	int rc;

	ch->deadline_ns = io_now_ns() + ch->timeout_ms * 1000000ull;
	rc = say(ch, secret, hello, err);
	ch->deadline_ns = 0;
	return rc;
}

/* -------- the target -------- */

/* What the peer speaks shows in its first byte. Says no in a way that it understands. */
static int check_tls(struct hearing *h, struct error *err)
{
	static const char no[] =
		"the target speaks TLS: give the source --tls, or the target --no-tls";
	bool tls = h->secret->tls;
	uint8_t first, rest[4096];
	int rc = channel_try_peek(&h->ch, &first, &h->wait, err);

	if (rc < 0)
		return rc;
	h->due = tls ? HEAR_TLS : HEAR_HELLO;
	if ((first == TLS_RECORD) == tls)
		return 0;
	/* What is not read makes the system throw away what is sent. */
	if (recv(h->ch.fd, rest, sizeof(rest), MSG_DONTWAIT) >= 0)
		message_send(&h->ch, MESSAGE_ABORT, no, strlen(no), NULL);
	return error_set(
		err, -EPROTONOSUPPORT,
		tls ? "it speaks without TLS: give the source --tls, or the target --no-tls"
		    : "it speaks TLS: give the target --tls, or the source --no-tls");
}

static int shake_hands(struct hearing *h, struct error *err)
{
	uint8_t key[KEY_SIZE];
	int rc = derive(h->secret, "tls", key, err);

	if (rc == 0)
		rc = channel_try_secure(&h->ch, true, key, &h->wait, err);
	if (rc == 0)
		h->due = HEAR_HELLO;
	return explain_tls(rc, err);
}

/* The size of the record that comes, as far as that is known. */
static int record_size(const struct hearing *h, size_t *ret, struct error *err)
{
	struct wire_reader r = wire_reader(h->record, RECORD_HEADER_SIZE);
	uint64_t length;

	*ret = RECORD_HEADER_SIZE;
	if (h->have < RECORD_HEADER_SIZE)
		return 0;
	wire_get_u64(&r); /* type and flags */
	length = wire_get_u64(&r);
	if (length > GREETING_MAX)
		return error_set(err, -EBADMSG, "%" PRIu64 " bytes from somebody unknown", length);
	*ret += (length + 7) & ~7ull;
	return 0;
}

/* A whole record of this type, exactly: what is behind it may be for others. */
static int hear_record(struct hearing *h, uint32_t type, struct message *ret, struct error *err)
{
	size_t size;
	int rc = record_size(h, &size, err);

	while (rc == 0 && h->have < size) {
		ssize_t n = channel_try_receive(&h->ch, h->record + h->have, size - h->have,
						&h->wait, err);

		if (n < 0)
			return (int)n;
		h->have += (size_t)n;
		rc = record_size(h, &size, err);
	}
	if (rc < 0)
		return rc;
	h->ch.early = h->record;
	h->ch.nearly = h->have;
	h->have = 0;
	return message_expect(&h->ch, type, ret, err);
}

static int challenge(struct hearing *h, const uint8_t hello[HELLO_SIZE], struct error *err)
{
	uint8_t body[NONCE_SIZE + KEY_SIZE];
	int rc = make_nonce(body, err);

	if (rc == 0)
		rc = prove(h->secret, "target", hello, body, body + NONCE_SIZE, err);
	if (rc == 0)
		rc = prove(h->secret, "source", hello, body, h->proof, err);
	return rc < 0 ? rc : message_send(&h->ch, MESSAGE_CHALLENGE, body, sizeof(body), err);
}

static int hear_hello(struct hearing *h, struct error *err)
{
	struct message m = {0};
	int rc = hear_record(h, MESSAGE_HELLO, &m, err);

	if (rc == 0)
		rc = hello_decode(&m, &h->hello, err);
	if (rc == 0)
		rc = challenge(h, m.body, err);
	message_done(&m);
	if (rc == 0)
		h->due = HEAR_PROOF;
	return rc;
}

/* 1 when it is right. */
static int hear_proof(struct hearing *h, struct error *err)
{
	struct message m = {0};
	int rc = hear_record(h, MESSAGE_PROOF, &m, err);

	if (rc == 0 && (m.length != KEY_SIZE || !token_equal(h->proof, m.body)))
		rc = error_set(err, -EACCES, "the two sides have not the same token");
	message_done(&m);
	return rc < 0 ? rc : 1;
}

void hearing_init(struct hearing *h, int fd, const struct secret *secret)
{
	/* A time that is over: nothing waits. */
	*h = (struct hearing){.ch = {.fd = fd, .deadline_ns = 1}, .secret = secret};
}

int hearing_step(struct hearing *h, struct error *err)
{
	static int (*const steps[])(struct hearing * h, struct error * err) = {
		[HEAR_FIRST] = check_tls,
		[HEAR_TLS] = shake_hands,
		[HEAR_HELLO] = hear_hello,
		[HEAR_PROOF] = hear_proof,
	};
	int rc;

	do {
		rc = steps[h->due](h, err);
	} while (rc == 0);
	if (rc < 0)
		return rc;
	h->ch.deadline_ns = 0;
	h->ch.early = NULL;
	return 0;
}

void hearing_done(struct hearing *h)
{
	channel_close(&h->ch);
}

bool hello_wants_tls(const char *address)
{
	return strncmp(address, "unix:", 5) != 0;
}
