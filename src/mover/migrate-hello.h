/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_HELLO_H
#define WISP_MOVER_MIGRATE_HELLO_H

/*
 * How two movers know each other on a new connection: TLS, if that is wanted, then a proof from
 * each that it has the token, which is never sent (docs/formats/migration.md).
 */

#include "channel/key.h"
#include "mover/migrate-message.h"

enum hello_kind {
	HELLO_NEW,
	HELLO_DATA,
	HELLO_RETURN,
	HELLO_REST, /* of a VM that was handed over: post-copy */
	HELLO_KINDS,
};

struct hello {
	uint32_t kind;
	uint8_t session[SESSION_SIZE];
	uint32_t stream, streams;
};

struct secret {
	uint8_t token[TOKEN_SIZE];
	bool tls;
};

/*
 * The source begins. The whole exchange may take ch->timeout_ms. -EACCES: the peer has another
 * token; -EPROTONOSUPPORT: other TLS, or another version; or as channel_receive().
 */
int hello_say(struct channel *ch, const struct secret *secret, const struct hello *hello,
	      struct error *err);

/* -------- the target hears it, from several at once -------- */

/* One connection whose peer has not proven yet that it has the token. */
struct hearing {
	struct channel ch; /* of who has proven it, the caller's */
	struct hello hello;
	short wait; /* what to poll for */
	/* Private. */
	const struct secret *secret;
	enum { HEAR_FIRST, HEAR_TLS, HEAR_HELLO, HEAR_PROOF } due;
	uint8_t proof[KEY_SIZE];
	uint8_t record[RECORD_HEADER_SIZE + GREETING_MAX + 8]; /* as far as it has come */
	size_t have;
};

/* fd becomes the hearing's; the secret stays the caller's. */
void hearing_init(struct hearing *h, int fd, const struct secret *secret);

/*
 * Goes on without waiting. 0: it has the token, and says hello; -EAGAIN: later; else -errno, and it
 * is to be sent away.
 */
int hearing_step(struct hearing *h, struct error *err);

void hearing_done(struct hearing *h);

/* Whether connections to an address are encrypted when nobody says: all but those of this host. */
bool hello_wants_tls(const char *address);

#endif
