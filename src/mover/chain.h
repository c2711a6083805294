/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_CHAIN_H
#define WISP_MOVER_CHAIN_H

/*
 * An epoch with all it is based on, down to a full one, merged in memory: where the newest content
 * of each page is. Several threads may read a chain at once, each with its own epoch_reader.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mover/epoch.h"
#include "mover/work.h"

struct error;

/* A row that has the newest content of some pages. */
struct source {
	const struct epoch *epoch;
	const struct row *row;
	uint64_t pages; /* of those stored in the row */
};

struct chain {
	struct epoch *epoch; /* the newest first, the full one last */
	unsigned n;
	uint64_t memory, chunks;
	struct source *source; /* sorted by chunk */
	size_t *first;	       /* chunk c has sources first[c] to first[c + 1] - 1 */
	size_t nsources;
};

/* Opens an epoch (0: the newest) and its parents. The store need not stay open. */
int chain_open(const struct store *store, uint64_t epoch, struct chain *ret, struct error *err);
void chain_close(struct chain *chain);

/* The pages of a chunk that are not zero. */
uint64_t chain_pages(const struct chain *chain, uint64_t chunk);

/* Where a page is, or NULL when it is zero. */
const struct source *chain_find(const struct chain *chain, uint64_t page);

/*
 * Reads a page and checks the sum of what it is stored with. Returns 1 with the content in out,
 * 0 when the page is zero (out is left alone), or -errno.
 */
int chain_read_page(const struct chain *chain, uint64_t page, struct epoch_reader *reader,
		    uint8_t out[PAGE_BYTES], struct error *err);

/*
 * Reads all pages of a chunk that are not zero to their place: page i to out + 4096 * i. The
 * others are left alone.
 */
int chain_read_chunk(const struct chain *chain, uint64_t chunk, struct epoch_reader *reader,
		     uint8_t *out, struct error *err);

/* Writes the pages of a chunk, as chain_read_chunk() read them to data, to their place in a memfd.
 */
int chain_write_chunk(const struct chain *chain, uint64_t chunk, const uint8_t *data, int memfd,
		      struct error *err);

struct restore_report {
	unsigned threads;
	uint64_t bytes; /* that are not zero */
	uint64_t ns;
};

/*
 * Fills guest memory: a fresh memfd, all zero, at least as large. Pages that are zero are not
 * touched, holes stay holes. threads 0: by CPUs and size. report may be NULL.
 */
int chain_restore(const struct chain *chain, int memfd, unsigned threads,
		  const struct progress *progress, struct restore_report *report,
		  struct error *err);

#endif
