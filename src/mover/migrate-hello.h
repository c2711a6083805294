/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_HELLO_H
#define WISP_MOVER_MIGRATE_HELLO_H

/*
 * How two movers know each other on a new connection: TLS, if that is wanted, then a proof from
 * each that it has the token, which is never sent (docs/formats/migration.md).
 */

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

/* The target answers; 0 only for a peer that has the token. */
int hello_hear(struct channel *ch, const struct secret *secret, struct hello *ret,
	       struct error *err);

/* Whether connections to an address are encrypted when nobody says: all but those of this host. */
bool hello_wants_tls(const char *address);

#endif
