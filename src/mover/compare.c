/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory against a chain of epochs. */

#include "mover/compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/page.h"

#define BLOCK 16u /* chunks that a thread takes at once */

struct compare {
	const struct chain *chain;
	int memfd;
	uint64_t *bitmap;
};

static int compare_chunk(const struct compare *c, uint64_t chunk, struct epoch_reader *reader,
			 uint8_t *now, uint8_t *then, struct error *err)
{
	uint64_t mask = index_chunk_mask(c->chain->memory, chunk);
	uint64_t stored = chain_pages(c->chain, chunk), differ = 0;
	int rc = io_pread_full(c->memfd, now, (size_t)__builtin_popcountll(mask) * PAGE_BYTES,
			       (off_t)(chunk * CHUNK_BYTES));

	if (rc < 0)
		return error_errno(err, rc, "cannot read guest memory");
	rc = chain_read_chunk(c->chain, chunk, reader, then, err);
	for (uint64_t left = mask; rc == 0 && left; left &= left - 1) {
		size_t at = (size_t)__builtin_ctzll(left) * PAGE_BYTES;
		bool same = stored & left & -left ? !memcmp(now + at, then + at, PAGE_BYTES)
						  : page_is_zero(now + at, PAGE_BYTES);

		if (!same)
			differ |= left & -left;
	}
	c->bitmap[chunk] = differ;
	return rc;
}

static int run(struct work *work, unsigned thread, struct error *err)
{
	const struct compare *c = work->arg;
	CLEANUP_FREE uint8_t *now = aligned_alloc(PAGE_BYTES, CHUNK_BYTES);
	CLEANUP_FREE uint8_t *then = aligned_alloc(PAGE_BYTES, CHUNK_BYTES);
	struct epoch_reader reader;
	uint64_t first;
	int rc = now && then ? epoch_reader_init(&reader, err)
			     : error_set(err, -ENOMEM, "out of memory");

	if (rc < 0)
		return rc;
	while (rc == 0 && (first = atomic_fetch_add(&work->next, BLOCK)) < c->chain->chunks) {
		uint64_t end = first + BLOCK;

		for (uint64_t i = first; rc == 0 && i < end && i < c->chain->chunks; i++) {
			rc = work_check(work, err);
			if (rc == 0)
				rc = compare_chunk(c, i, &reader, now, then, err);
			work->done += CHUNK_BYTES;
		}
	}
	epoch_reader_done(&reader);
	return rc;
}

int compare_memory(const struct chain *chain, int memfd, const struct progress *progress,
		   uint64_t *bitmap, struct error *err)
{
	struct compare c = {.chain = chain, .memfd = memfd, .bitmap = bitmap};
	struct work work = {.threads = work_threads(chain->memory),
			    .run = run,
			    .arg = &c,
			    .progress = progress,
			    .what = "comparing",
			    .total = chain->memory};

	return work_run(&work, err);
}
