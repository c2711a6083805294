/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_MESSAGE_H
#define WISP_MOVER_MIGRATE_MESSAGE_H

/* The records that two movers exchange (docs/formats/migration.md), over a channel. */

#include <jansson.h>

#include "mover/channel.h"
#include "mover/index.h"
#include "mover/record.h"

#define MIGRATE_VERSION 1
#define MIGRATE_STREAMS 64u
#define SESSION_SIZE 16
#define TOKEN_SIZE 32
#define NONCE_SIZE 32
#define GREETING_MAX 4096u /* bytes in a record from somebody unknown */

enum message_type {
	MESSAGE_STATE = RECORD_STATE,
	MESSAGE_PAGES = RECORD_PAGES,
	MESSAGE_CHALLENGE = 14,
	MESSAGE_PROOF,
	MESSAGE_HELLO,
	MESSAGE_WELCOME,
	MESSAGE_CONFIG,
	MESSAGE_OBSTACLES,
	MESSAGE_SYNC,
	MESSAGE_ROUND,
	MESSAGE_ACK,
	MESSAGE_PREPARE,
	MESSAGE_PREPARED,
	MESSAGE_COMMIT,
	MESSAGE_RUNNING,
	MESSAGE_ABORT,
	MESSAGE_MISSING,
	MESSAGE_REQUEST,
	MESSAGE_WHOLE,
	MESSAGE_UNIT,
};

#define ROUND_REST UINT64_MAX /* of a sync: the pages that follow a VM have been sent */

struct message {
	uint32_t type;
	uint32_t sum;
	uint64_t length;
	uint8_t *body; /* of message_receive(): length bytes and a NUL */
};

int message_send(struct channel *ch, uint32_t type, const void *body, uint64_t length,
		 struct error *err);
int message_send_u64(struct channel *ch, uint32_t type, uint64_t value, struct error *err);
int message_send_json(struct channel *ch, uint32_t type, const json_t *value, struct error *err);

/* A row with its data (row->length bytes); the sum is made here, where one is wanted. */
int message_send_pages(struct channel *ch, const struct row *row, const void *data,
		       struct error *err);

/* A row whose data, pages as they are, the caller sends next: where channel_is_sound(). */
int message_send_row(struct channel *ch, const struct row *row, struct error *err);

/*
 * The next record of a known type, whole and checked; the body is freed by message_done(), which
 * may be called on a zeroed or used message. -EBADMSG for anything wrong with it.
 */
int message_receive(struct channel *ch, struct message *ret, struct error *err);
void message_done(struct message *m);

/* The body of an abort, for logs and terminals: printable characters only. */
const char *message_text(struct message *m);

/* What was received must be of this type: an abort gives -ECONNABORTED with its reason. */
int message_is(struct message *m, uint32_t type, struct error *err);
/* Receives one that is. */
int message_expect(struct channel *ch, uint32_t type, struct message *ret, struct error *err);

/*
 * For data connections: only the header; then the body follows with message_receive_row() (for
 * MESSAGE_PAGES), or message_body_u64(). After a row come its data: row.length bytes, by
 * message_receive_data() into a buffer, sum checked, or, if they are not compressed and where
 * channel_is_sound(), by the caller. message_receive_pages() is both, into a buffer
 * of CHUNK_BYTES.
 */
int message_next(struct channel *ch, struct message *ret, struct error *err);
int message_receive_row(struct channel *ch, const struct message *m, uint64_t memory,
			struct row *ret, struct error *err);
int message_receive_data(struct channel *ch, const struct row *row, void *data, struct error *err);
int message_receive_pages(struct channel *ch, const struct message *m, uint64_t memory,
			  struct row *ret, void *data, struct error *err);
int message_body_u64(struct channel *ch, const struct message *m, uint64_t *ret, struct error *err);

int message_u64(const struct message *m, uint64_t *ret, struct error *err);
int message_json(const struct message *m, json_t **ret, struct error *err);

/* In a time that does not depend on where they differ. */
bool token_equal(const uint8_t a[TOKEN_SIZE], const uint8_t b[TOKEN_SIZE]);

enum session_state {
	SESSION_NEW,
	SESSION_PREPARED,
	SESSION_RUNNING,
	SESSION_ABORTED,
	SESSION_UNKNOWN,
	SESSION_PREPARED_REST, /* pages are to follow */
	SESSION_RUNNING_REST,
	SESSION_STATES,
};

int welcome_send(struct channel *ch, enum session_state state, struct error *err);
int welcome_receive(struct channel *ch, enum session_state *ret, struct error *err);

#endif
