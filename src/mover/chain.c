/* SPDX-License-Identifier: Apache-2.0 */
/* Chains of epochs: opening, and the merged index. */

#include "mover/chain.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define TRIES 10 /* when a merge changes the chain while it is opened */

static int newest(const struct store *store, uint64_t *ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n;
	int rc = store_epochs(store, &epochs, &n, err);

	if (rc < 0)
		return rc;
	if (!n)
		return error_set(err, -ENOENT, "%s has no checkpoint", store->path);
	*ret = epochs[n - 1];
	return 0;
}

/* Opens one more, and checks that it is what the one before it is based on. */
static int add_epoch(const struct store *store, uint64_t number, struct chain *chain,
		     struct error *err)
{
	struct epoch *bigger = realloc(chain->epoch, (chain->n + 1) * sizeof(*bigger));
	const struct manifest *child;
	int rc;

	if (!bigger)
		return error_set(err, -ENOMEM, "out of memory");
	chain->epoch = bigger;
	rc = epoch_open(store, number, &bigger[chain->n], err);
	if (rc < 0)
		return rc;
	if (!chain->n++)
		return 0;
	child = &bigger[chain->n - 2].manifest;
	if (strcmp(child->parent, bigger[chain->n - 1].manifest.identity))
		return error_set(err, -EBADMSG,
				 "%s is not what epoch %" PRIu64
				 " is based on: it was replaced by another checkpoint",
				 bigger[chain->n - 1].name, child->epoch);
	if (child->memory != bigger[chain->n - 1].manifest.memory)
		return error_set(err, -EBADMSG, "%s has another size of memory than its child",
				 bigger[chain->n - 1].name);
	return 0;
}

static int open_epochs(const struct store *store, uint64_t epoch, struct chain *chain,
		       struct error *err)
{
	int rc = epoch ? 0 : newest(store, &epoch, err);

	while (rc == 0 && epoch) {
		rc = add_epoch(store, epoch, chain, err);
		if (rc == 0)
			epoch = chain->epoch[chain->n - 1].manifest.parent_epoch;
		else if (chain->n)
			error_prefix(err, rc, "epoch %" PRIu64 " needs epoch %" PRIu64,
				     chain->epoch[0].manifest.epoch, epoch);
	}
	return rc;
}

static int add_source(struct chain *chain, size_t *room, struct source source, struct error *err)
{
	if (chain->nsources == *room) {
		size_t more = *room ? 2 * *room : 1024;
		struct source *bigger = realloc(chain->source, more * sizeof(*bigger));

		if (!bigger)
			return error_set(err, -ENOMEM, "no memory for an index of %zu rows", more);
		chain->source = bigger;
		*room = more;
	}
	chain->source[chain->nsources++] = source;
	return 0;
}

/* The rows of a chunk, the newest epoch first and in it the last row first: who comes first wins.
 */
static int merge_chunk(struct chain *chain, uint64_t chunk, size_t *next, size_t *room,
		       struct error *err)
{
	uint64_t taken = 0;

	for (unsigned e = 0; e < chain->n; e++) {
		const struct index *index = &chain->epoch[e].index;
		size_t from = next[e], i;

		while (next[e] < index->nrows && index->rows[next[e]].chunk == chunk)
			next[e]++;
		for (i = next[e]; i > from; i--) {
			const struct row *row = &index->rows[i - 1];
			struct source source = {&chain->epoch[e], row, row->stored & ~taken};
			int rc = source.pages ? add_source(chain, room, source, err) : 0;

			if (rc < 0)
				return rc;
			taken |= row->stored | row->zero;
		}
	}
	return 0;
}

static int merge(struct chain *chain, struct error *err)
{
	CLEANUP_FREE size_t *next = calloc(chain->n, sizeof(*next));
	size_t room = 0;
	int rc = 0;

	chain->memory = chain->epoch[0].manifest.memory;
	chain->chunks = index_chunks(chain->memory);
	chain->first = calloc(chain->chunks + 1, sizeof(*chain->first));
	if (!next || !chain->first)
		return error_set(err, -ENOMEM, "no memory for an index of %" PRIu64 " chunks",
				 chain->chunks);
	for (uint64_t c = 0; rc == 0 && c < chain->chunks; c++) {
		rc = merge_chunk(chain, c, next, &room, err);
		chain->first[c + 1] = chain->nsources;
	}
	return rc;
}

int chain_open(const struct store *store, uint64_t epoch, struct chain *ret, struct error *err)
{
	int rc = -ENOENT;

	for (unsigned i = 0; i < TRIES && rc == -ENOENT; i++) {
		struct chain chain = {0};

		rc = open_epochs(store, epoch, &chain, err);
		if (rc == 0)
			rc = merge(&chain, err);
		if (rc < 0)
			chain_close(&chain);
		else
			*ret = chain;
	}
	return rc;
}

void chain_close(struct chain *chain)
{
	for (unsigned i = 0; i < chain->n; i++)
		epoch_close(&chain->epoch[i]);
	free(chain->epoch);
	free(chain->source);
	free(chain->first);
	*chain = (struct chain){0};
}

uint64_t chain_pages(const struct chain *chain, uint64_t chunk)
{
	uint64_t pages = 0;

	for (size_t i = chain->first[chunk]; i < chain->first[chunk + 1]; i++)
		pages |= chain->source[i].pages;
	return pages;
}

const struct source *chain_find(const struct chain *chain, uint64_t page)
{
	uint64_t chunk = page / CHUNK_PAGES;

	for (size_t i = chain->first[chunk]; i < chain->first[chunk + 1]; i++)
		if (chain->source[i].pages >> page % CHUNK_PAGES & 1)
			return &chain->source[i];
	return NULL;
}

int chain_read_page(const struct chain *chain, uint64_t page, struct epoch_reader *reader,
		    uint8_t out[PAGE_BYTES], struct error *err)
{
	const struct source *s = chain_find(chain, page);
	const uint8_t *data;
	uint64_t before;
	int rc;

	if (!s)
		return 0;
	rc = epoch_read(s->epoch, s->row, reader, &data, err);
	if (rc < 0)
		return rc;
	before = s->row->stored & ((1ull << page % CHUNK_PAGES) - 1);
	memcpy(out, data + (size_t)__builtin_popcountll(before) * PAGE_BYTES, PAGE_BYTES);
	return 1;
}

int chain_read_chunk(const struct chain *chain, uint64_t chunk, struct epoch_reader *reader,
		     uint8_t *out, struct error *err)
{
	int rc = 0;

	for (size_t i = chain->first[chunk]; rc == 0 && i < chain->first[chunk + 1]; i++) {
		const struct source *s = &chain->source[i];

		rc = epoch_scatter(s->epoch, s->row, s->pages, reader, out, err);
	}
	return rc;
}
