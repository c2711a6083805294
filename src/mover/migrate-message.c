/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and checking of what two movers say. */

#include "mover/migrate-message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/wire.h"

#define SUMMED (RECORD_HEADER_SIZE - 4)
#define BODY_MAX (1u << 20)
#define STATE_MAX (256u << 20)
#define TEXT_MAX 4096u
#define ROW_HEAD (RECORD_HEADER_SIZE + ROW_SIZE)

static const uint8_t zeros[8];

static size_t padding(uint64_t length)
{
	return -length & 7;
}

static void encode_header(struct channel *ch, uint8_t out[RECORD_HEADER_SIZE], uint32_t type,
			  uint64_t length, uint32_t sum)
{
	struct wire_writer w = wire_writer(out, RECORD_HEADER_SIZE);

	wire_put_u32(&w, type);
	wire_put_u32(&w, 0);
	wire_put_u64(&w, length);
	wire_put_u32(&w, sum);
	wire_put_u32(&w, ch->sent++);
	wire_put_u32(&w, 0);
	wire_put_u32(&w, crc32c(0, out, SUMMED));
}

int message_send(struct channel *ch, uint32_t type, const void *body, uint64_t length,
		 struct error *err)
{
	uint8_t header[RECORD_HEADER_SIZE];
	struct iovec iov[] = {{header, sizeof(header)},
			      {(void *)(uintptr_t)body, length},
			      {(void *)(uintptr_t)zeros, padding(length)}};

	encode_header(ch, header, type, length, crc32c(0, body, length));
	return channel_send(ch, iov, ARRAY_SIZE(iov), err);
}

int message_send_u64(struct channel *ch, uint32_t type, uint64_t value, struct error *err)
{
	value = htole64(value);
	return message_send(ch, type, &value, sizeof(value), err);
}

int message_send_json(struct channel *ch, uint32_t type, const json_t *value, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);

	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	if (strlen(text) > BODY_MAX)
		return error_set(err, -EMSGSIZE, "%zu bytes of JSON are too many", strlen(text));
	return message_send(ch, type, text, strlen(text), err);
}

/* What nothing else protects is summed, and what is about to be decompressed in any case. */
static bool is_summed(struct channel *ch, const struct row *row)
{
	return row->length && (row->compression || !channel_is_sound(ch));
}

static void encode_row(struct channel *ch, uint8_t out[ROW_HEAD], const struct row *row)
{
	struct wire_writer w = wire_writer(out + RECORD_HEADER_SIZE, ROW_SIZE);

	row_encode(&w, row);
	encode_header(ch, out, MESSAGE_PAGES, ROW_SIZE + (uint64_t)row->length,
		      crc32c(0, out + RECORD_HEADER_SIZE, ROW_SIZE));
}

int message_send_row(struct channel *ch, const struct row *row, struct error *err)
{
	uint8_t head[ROW_HEAD];
	struct iovec iov = {head, sizeof(head)};

	encode_row(ch, head, row);
	return channel_send(ch, &iov, 1, err);
}

int message_send_pages(struct channel *ch, const struct row *row, const void *data,
		       struct error *err)
{
	struct row summed = *row;
	uint8_t head[ROW_HEAD];
	struct iovec iov[] = {{head, sizeof(head)},
			      {(void *)(uintptr_t)data, row->length},
			      {(void *)(uintptr_t)zeros, padding(row->length)}};

	summed.sum = is_summed(ch, row) ? crc32c(0, data, row->length) : 0;
	encode_row(ch, head, &summed);
	return channel_send(ch, iov, ARRAY_SIZE(iov), err);
}

/* The largest body of a type; 0: no such type. Empty ones have 1 here. */
static uint64_t body_max(uint32_t type)
{
	switch (type) {
	case MESSAGE_STATE:
		return STATE_MAX;
	case MESSAGE_PAGES:
		return ROW_SIZE + CHUNK_BYTES;
	case MESSAGE_ABORT:
		return TEXT_MAX;
	case MESSAGE_HELLO:
	case MESSAGE_CHALLENGE:
	case MESSAGE_PROOF:
		return GREETING_MAX;
	default:
		return type >= MESSAGE_HELLO && type <= MESSAGE_UNIT ? BODY_MAX : 0;
	}
}

static int receive_header(struct channel *ch, struct message *m, uint32_t *flags, struct error *err)
{
	uint8_t header[RECORD_HEADER_SIZE];
	struct wire_reader r = wire_reader(header, sizeof(header));
	int rc = channel_check(ch, err);
	uint32_t number, reserved;

	if (rc == 0)
		rc = channel_receive(ch, header, sizeof(header), err);
	if (rc < 0)
		return rc;
	m->type = wire_get_u32(&r);
	*flags = wire_get_u32(&r);
	m->length = wire_get_u64(&r);
	m->sum = wire_get_u32(&r);
	number = wire_get_u32(&r);
	reserved = wire_get_u32(&r);
	if (wire_get_u32(&r) != crc32c(0, header, SUMMED))
		return error_set(err, -EBADMSG, "the header of record %" PRIu32 " is damaged",
				 ch->received);
	if (number != ch->received)
		return error_set(err, -EBADMSG, "record %" PRIu32 " where %" PRIu32 " should be",
				 number, ch->received);
	if (ch->deadline_ns && m->length > GREETING_MAX)
		return error_set(err, -EBADMSG, "%" PRIu64 " bytes from somebody unknown",
				 m->length);
	if (reserved || *flags & ~RECORD_OPTIONAL)
		return error_set(err, -EBADMSG, "record %" PRIu32 " is of a later version of Wisp",
				 number);
	ch->received++;
	return 0;
}

static int receive_body(struct channel *ch, const struct message *m, void *body, struct error *err)
{
	uint8_t pad[8] = {0};
	int rc = channel_receive(ch, body, m->length, err);

	if (rc == 0)
		rc = channel_receive(ch, pad, padding(m->length), err);
	if (rc < 0)
		return rc;
	if (crc32c(0, body, m->length) != m->sum || memcmp(pad, zeros, sizeof(pad)))
		return error_set(err, -EBADMSG, "record %" PRIu32 " is damaged", ch->received - 1);
	return 0;
}

/* Reads a record that may be skipped, whatever it has. */
static int skip(struct channel *ch, const struct message *m, struct error *err)
{
	CLEANUP_FREE uint8_t *body = NULL;

	if (m->length > BODY_MAX)
		return error_set(err, -EBADMSG, "an optional record of %" PRIu64 " bytes",
				 m->length);
	body = malloc(m->length + 1);
	if (!body)
		return error_set(err, -ENOMEM, "out of memory");
	return receive_body(ch, m, body, err);
}

int message_next(struct channel *ch, struct message *ret, struct error *err)
{
	for (;;) {
		struct message m = {0};
		uint32_t flags = 0;
		int rc = receive_header(ch, &m, &flags, err);

		if (rc < 0)
			return rc;
		if (body_max(m.type)) {
			if (m.length > body_max(m.type))
				return error_set(err, -EBADMSG,
						 "a record of type %" PRIu32 " with %" PRIu64
						 " bytes",
						 m.type, m.length);
			*ret = m;
			return 0;
		}
		if (!(flags & RECORD_OPTIONAL))
			return error_set(err, -EBADMSG,
					 "type %" PRIu32
					 ", which this version of Wisp does not know",
					 m.type);
		rc = skip(ch, &m, err);
		if (rc < 0)
			return rc;
	}
}

int message_receive(struct channel *ch, struct message *ret, struct error *err)
{
	struct message m = {0};
	int rc = message_next(ch, &m, err);

	if (rc < 0)
		return rc;
	m.body = malloc(m.length + 1);
	if (!m.body)
		return error_set(err, -ENOMEM, "no memory for %" PRIu64 " bytes", m.length);
	rc = receive_body(ch, &m, m.body, err);
	if (rc < 0) {
		message_done(&m);
		return rc;
	}
	m.body[m.length] = '\0';
	*ret = m;
	return 0;
}

void message_done(struct message *m)
{
	free(m->body);
	m->body = NULL;
}

const char *message_text(struct message *m)
{
	for (char *text = (char *)m->body; *text; text++)
		if (*text < ' ' || *text == 0x7f)
			*text = '?';
	return (const char *)m->body;
}

int message_is(struct message *m, uint32_t type, struct error *err)
{
	int rc;

	if (m->type == type)
		return 0;
	if (m->type == MESSAGE_ABORT)
		rc = error_set(err, -ECONNABORTED, "the peer gave up: %.400s", message_text(m));
	else
		rc = error_set(err, -EBADMSG,
			       "the peer sent a record of type %" PRIu32 " where %" PRIu32
			       " is due",
			       m->type, type);
	message_done(m);
	return rc;
}

int message_expect(struct channel *ch, uint32_t type, struct message *ret, struct error *err)
{
	struct message m = {0};
	int rc = message_receive(ch, &m, err);

	if (rc == 0)
		rc = message_is(&m, type, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

int message_receive_row(struct channel *ch, const struct message *m, uint64_t memory,
			struct row *ret, struct error *err)
{
	uint8_t bytes[ROW_SIZE];
	struct wire_reader r = wire_reader(bytes, sizeof(bytes));
	struct row row;
	int rc;

	if (m->length < ROW_SIZE)
		return error_set(err, -EBADMSG, "pages without a row");
	rc = channel_receive(ch, bytes, sizeof(bytes), err);
	if (rc < 0)
		return rc;
	if (crc32c(0, bytes, sizeof(bytes)) != m->sum)
		return error_set(err, -EBADMSG, "record %" PRIu32 " is damaged", ch->received - 1);
	rc = row_decode(&r, memory, 1, &row, err);
	if (rc < 0)
		return rc;
	if (row.offset || m->length != ROW_SIZE + (uint64_t)row.length)
		return error_set(err, -EBADMSG, "the row of chunk %" PRIu64 " has other data",
				 row.chunk);
	if (row.sum && !is_summed(ch, &row))
		return error_set(err, -EBADMSG, "chunk %" PRIu64 " has a sum that nobody wants",
				 row.chunk);
	*ret = row;
	return 0;
}

int message_receive_data(struct channel *ch, const struct row *row, void *data, struct error *err)
{
	uint8_t pad[8] = {0};
	int rc = channel_receive(ch, data, row->length, err);

	if (rc == 0)
		rc = channel_receive(ch, pad, padding(row->length), err);
	if (rc < 0)
		return rc;
	if ((is_summed(ch, row) && crc32c(0, data, row->length) != row->sum) ||
	    memcmp(pad, zeros, sizeof(pad)))
		return error_set(err, -EBADMSG, "the data of chunk %" PRIu64 " are damaged",
				 row->chunk);
	return 0;
}

int message_receive_pages(struct channel *ch, const struct message *m, uint64_t memory,
			  struct row *ret, void *data, struct error *err)
{
	int rc = message_receive_row(ch, m, memory, ret, err);

	return rc < 0 ? rc : message_receive_data(ch, ret, data, err);
}

int message_body_u64(struct channel *ch, const struct message *m, uint64_t *ret, struct error *err)
{
	uint8_t bytes[8];
	struct message whole = *m;
	int rc;

	if (m->length != sizeof(bytes))
		return error_set(err, -EBADMSG, "%" PRIu64 " bytes for a number", m->length);
	rc = receive_body(ch, m, bytes, err);
	whole.body = bytes;
	return rc < 0 ? rc : message_u64(&whole, ret, err);
}

int message_u64(const struct message *m, uint64_t *ret, struct error *err)
{
	struct wire_reader r = wire_reader(m->body, m->length);
	uint64_t value = wire_get_u64(&r);

	if (!wire_done(&r))
		return error_set(err, -EBADMSG, "%" PRIu64 " bytes for a number", m->length);
	*ret = value;
	return 0;
}

int message_json(const struct message *m, json_t **ret, struct error *err)
{
	json_error_t jerr;
	json_t *value = json_loadb((const char *)m->body, m->length, JSON_REJECT_DUPLICATES, &jerr);

	if (!value)
		return error_set(err, -EBADMSG, "the peer sent no JSON: %.100s", jerr.text);
	*ret = value;
	return 0;
}

bool token_equal(const uint8_t a[TOKEN_SIZE], const uint8_t b[TOKEN_SIZE])
{
	volatile uint8_t differ = 0;

	for (unsigned i = 0; i < TOKEN_SIZE; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

int welcome_send(struct channel *ch, enum session_state state, struct error *err)
{
	uint8_t body[8];
	struct wire_writer w = wire_writer(body, sizeof(body));

	wire_put_u32(&w, MIGRATE_VERSION);
	wire_put_u32(&w, state);
	return message_send(ch, MESSAGE_WELCOME, body, sizeof(body), err);
}

int welcome_receive(struct channel *ch, enum session_state *ret, struct error *err)
{
	struct message m = {0};
	int rc = message_expect(ch, MESSAGE_WELCOME, &m, err);
	struct wire_reader r = wire_reader(m.body, rc == 0 ? m.length : 0);
	uint32_t version = wire_get_u32(&r), state = wire_get_u32(&r);

	if (rc == 0 && (!wire_done(&r) || version != MIGRATE_VERSION || state >= SESSION_STATES))
		rc = error_set(err, -EBADMSG, "a welcome that cannot be");
	if (rc == 0)
		*ret = (enum session_state)state;
	message_done(&m);
	return rc;
}
