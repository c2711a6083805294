/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that follow a VM are given to it as they come. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "mover/migrate-catcher.h"
#include "mover/page.h"

/* What one connection needs to take pages. */
struct hold {
	struct catcher *c;
	unsigned stream;
	uint8_t *data, *raw;
	struct compressor *compressor;
};

/* The pages of a set, out of those that lie at data one behind the other. */
static int give(struct catcher *c, uint64_t chunk, uint64_t set, uint64_t stored,
		const uint8_t *data, struct error *err)
{
	int rc = 0;

	while (rc == 0 && set) {
		unsigned first, n, before;

		set = page_run(set, &first, &n);
		before = (unsigned)__builtin_popcountll(stored & ((1ull << first) - 1));
		if (c->huge)
			memcpy(huge_at(c->huge, chunk) + (size_t)first * PAGE_BYTES,
			       data + (size_t)before * PAGE_BYTES, (size_t)n * PAGE_BYTES);
		else
			rc = faults_copy(&c->faults, chunk * CHUNK_PAGES + first, n,
					 data + (size_t)before * PAGE_BYTES, err);
	}
	return rc;
}

/* Zero pages stay holes, unless somebody waits for them, or they are parts of huge ones. */
static int give_zeros(struct catcher *c, uint64_t chunk, uint64_t set, struct error *err)
{
	int rc = 0;

	atomic_fetch_or(&c->zero[chunk], set);
	if (c->huge)
		return 0;
	for (set &= c->asked[chunk]; rc == 0 && set; set &= set - 1)
		rc = faults_zero(&c->faults, chunk * CHUNK_PAGES + (unsigned)__builtin_ctzll(set),
				 err);
	return rc;
}

static int put(struct catcher *c, const struct row *row, const uint8_t *data, struct error *err)
{
	uint64_t all = row->stored | row->zero;
	uint64_t mine = atomic_fetch_and(&c->wanted[row->chunk], ~all) & all;
	int rc = give(c, row->chunk, mine & row->stored, row->stored, data, err);

	if (rc == 0)
		rc = give_zeros(c, row->chunk, row->zero & (mine | c->zero[row->chunk]), err);
	if (rc == 0 && c->huge)
		rc = huge_came(c->huge, row->chunk, (unsigned)__builtin_popcountll(mine), err);
	if (rc < 0)
		return rc;
	if (!c->huge)
		blocktime_end(&c->blocktime, row->chunk, mine);
	else if (rc)
		catcher_end_huge(c, row->chunk);
	if (mine) {
		SCOPED_LOCK(&c->mutex);
		c->left -= (unsigned)__builtin_popcountll(mine);
		pthread_cond_broadcast(&c->changed);
	}
	return 0;
}

static int take_row(struct hold *h, const struct message *m, struct error *err)
{
	struct catcher *c = h->c;
	const uint8_t *data = h->data;
	uint64_t allowed;
	struct row row;
	int rc = message_receive_pages(&c->channel[h->stream], m, c->o.memory, &row, h->data, err);

	if (rc < 0)
		return rc;
	allowed = h->stream ? c->due[row.chunk] : c->asked[row.chunk];
	if ((row.stored | row.zero) & ~allowed)
		return error_set(err, -EBADMSG,
				 "the source sends pages of chunk %" PRIu64 " that %s", row.chunk,
				 h->stream ? "were not missing" : "nobody asked for");
	if (row.compression && row.length) {
		rc = compressor_unpack(h->compressor, row.compression, h->data, row.length, h->raw,
				       (size_t)row_pages(&row) * PAGE_BYTES);
		if (rc < 0)
			return error_set(err, rc, "chunk %" PRIu64 " does not decompress",
					 row.chunk);
		data = h->raw;
	}
	return put(c, &row, data, err);
}

/* 1: the last page of this connection has come. */
static int take_end(struct hold *h, const struct message *m, struct error *err)
{
	uint64_t number;
	int rc = message_body_u64(&h->c->channel[h->stream], m, &number, err);

	if (rc == 0 && (number != ROUND_REST || !h->stream))
		rc = error_set(err, -EBADMSG, "round %" PRIu64 " among the pages that follow",
			       number);
	return rc < 0 ? rc : 1;
}

static int take_all(struct hold *h, struct error *err)
{
	struct channel *ch = &h->c->channel[h->stream];
	int rc;

	do {
		struct message m = {0};

		rc = message_wait_long(ch, err);
		if (rc == 0)
			rc = message_next(ch, &m, err);
		if (rc < 0)
			return rc;
		if (m.type == MESSAGE_PAGES)
			rc = take_row(h, &m, err);
		else if (m.type == MESSAGE_SYNC)
			rc = take_end(h, &m, err);
		else
			rc = error_set(err, -EBADMSG, "type %" PRIu32 " among pages", m.type);
	} while (rc == 0);
	return rc;
}

void *catcher_take_main(void *arg)
{
	const struct catcher_lane *lane = arg;
	struct hold h = {.c = lane->c, .stream = lane->stream};
	struct error err = {{0}};
	int rc = 0;

	free(arg);
	if (posix_memalign((void **)&h.data, PAGE_BYTES, CHUNK_BYTES) ||
	    posix_memalign((void **)&h.raw, PAGE_BYTES, CHUNK_BYTES) ||
	    compressor_create(COMPRESSION_NONE, &h.compressor) < 0)
		rc = error_set(&err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = take_all(&h, &err);
	free(h.data);
	free(h.raw);
	compressor_destroy(h.compressor);
	if (rc < 0)
		catcher_fail(h.c, rc, &err);
	return NULL;
}
