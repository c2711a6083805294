/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages are missing, and which are wanted now: what two movers say of it. */

#include "mover/migrate-set.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/wire.h"

#define PAIR 16u     /* bytes for a chunk */
#define PAIRS 65535u /* in a record */

int missing_send(struct channel *ch, uint64_t memory, const uint64_t *missing, const uint64_t *zero,
		 struct error *err)
{
	uint64_t chunks = index_chunks(memory), n;
	size_t room = 8 + PAIR * (size_t)(chunks < PAIRS ? chunks : PAIRS);
	CLEANUP_FREE uint8_t *body = malloc(room);
	int rc = body ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (uint64_t first = 0; rc == 0 && first < chunks; first += n) {
		struct wire_writer w = wire_writer(body, room);

		n = chunks - first < PAIRS ? chunks - first : PAIRS;
		wire_put_u64(&w, first);
		for (uint64_t c = first; c < first + n; c++) {
			wire_put_u64(&w, missing[c]);
			wire_put_u64(&w, zero ? zero[c] : 0);
		}
		rc = message_send(ch, MESSAGE_MISSING, body, 8 + PAIR * n, err);
	}
	return rc;
}

int missing_take(const struct message *m, uint64_t memory, uint64_t *next, uint64_t *missing,
		 uint64_t *zero, struct error *err)
{
	struct wire_reader r = wire_reader(m->body, m->length);
	uint64_t first = wire_get_u64(&r), chunks = index_chunks(memory);
	uint64_t n = m->length > 8 ? (m->length - 8) / PAIR : 0;

	if (!n || m->length != 8 + n * PAIR || first != *next || n > chunks - first)
		return error_set(err, -EBADMSG,
				 "%" PRIu64 " bytes on what is missing from chunk %" PRIu64
				 ", where %" PRIu64 " chunks are left",
				 m->length, first, chunks - *next);
	for (uint64_t c = first; c < first + n; c++) {
		uint64_t pages = wire_get_u64(&r), zeros = wire_get_u64(&r);

		if (pages & ~index_chunk_mask(memory, c) || zeros & ~pages)
			return error_set(err, -EBADMSG,
					 "pages are missing that chunk %" PRIu64 " does not have",
					 c);
		missing[c] = pages;
		if (zero)
			zero[c] = zeros;
	}
	*next = first + n;
	return 0;
}

int missing_receive(struct channel *ch, uint64_t memory, uint64_t *missing, uint64_t *zero,
		    struct error *err)
{
	uint64_t next = 0;
	int rc = 0;

	while (rc == 0 && next < index_chunks(memory)) {
		struct message m = {0};

		rc = message_expect(ch, MESSAGE_MISSING, &m, err);
		if (rc == 0)
			rc = missing_take(&m, memory, &next, missing, zero, err);
		message_done(&m);
	}
	return rc;
}

uint64_t set_count(const uint64_t *set, uint64_t memory)
{
	uint64_t n = 0;

	for (uint64_t c = 0; c < index_chunks(memory); c++)
		n += (unsigned)__builtin_popcountll(set[c]);
	return n;
}

int message_wait_long(struct channel *ch, struct error *err)
{
	unsigned patience = ch->timeout_ms;
	int rc;

	ch->timeout_ms = 0;
	rc = channel_wait(ch, err);
	ch->timeout_ms = patience;
	return rc;
}

int request_send(struct channel *ch, uint64_t chunk, uint64_t pages, struct error *err)
{
	uint8_t body[PAIR];
	struct wire_writer w = wire_writer(body, sizeof(body));

	wire_put_u64(&w, chunk);
	wire_put_u64(&w, pages);
	return message_send(ch, MESSAGE_REQUEST, body, sizeof(body), err);
}

int request_take(const struct message *m, uint64_t memory, uint64_t *chunk, uint64_t *pages,
		 struct error *err)
{
	struct wire_reader r = wire_reader(m->body, m->length);
	uint64_t c = wire_get_u64(&r), set = wire_get_u64(&r);

	if (!wire_done(&r) || c >= index_chunks(memory) || !set ||
	    set & ~index_chunk_mask(memory, c))
		return error_set(err, -EBADMSG, "a request for pages that the VM does not have");
	*chunk = c;
	*pages = set;
	return 0;
}
