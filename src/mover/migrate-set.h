/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_SET_H
#define WISP_MOVER_MIGRATE_SET_H

/*
 * Sets of pages on the wire (docs/formats/migration.md): a word for each chunk of memory, a bit for
 * each of its pages. What a peer sends is checked here.
 */

#include "mover/migrate-message.h"

struct error;

/* Sends which pages are missing, and which of them are zero (NULL: none are known to be). */
int missing_send(struct channel *ch, uint64_t memory, const uint64_t *missing, const uint64_t *zero,
		 struct error *err);

/*
 * Takes one of the records, *next (a chunk, at first 0) says how far they have come: the last of
 * them has been taken when it is index_chunks(memory).
 */
int missing_take(const struct message *m, uint64_t memory, uint64_t *next, uint64_t *missing,
		 uint64_t *zero, struct error *err);

/* Receives all of them. */
int missing_receive(struct channel *ch, uint64_t memory, uint64_t *missing, uint64_t *zero,
		    struct error *err);

uint64_t set_count(const uint64_t *set, uint64_t memory);

/* Until there is something to receive, however long that takes. */
int message_wait_long(struct channel *ch, struct error *err);

/* A request for pages of one chunk. */
int request_send(struct channel *ch, uint64_t chunk, uint64_t pages, struct error *err);
int request_take(const struct message *m, uint64_t memory, uint64_t *chunk, uint64_t *pages,
		 struct error *err);

#endif
