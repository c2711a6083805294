/* SPDX-License-Identifier: Apache-2.0 */
/* Eager restores: all pages of a chain into guest memory, by several threads. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"

#define BLOCK 16u /* chunks that a thread takes at once */

struct restore {
	const struct chain *chain;
	uint8_t *memory;
};

static int restore_chunks(const struct restore *r, struct work *work, struct epoch_reader *reader,
			  struct error *err)
{
	uint64_t first;

	while ((first = atomic_fetch_add(&work->next, BLOCK)) < r->chain->chunks) {
		uint64_t end = first + BLOCK;

		for (uint64_t c = first; c < end && c < r->chain->chunks; c++) {
			int rc = work_check(work, err);

			if (rc == 0)
				rc = chain_read_chunk(r->chain, c, reader,
						      r->memory + c * CHUNK_BYTES, err);
			if (rc < 0)
				return rc;
			work->done += (unsigned)__builtin_popcountll(chain_pages(r->chain, c)) *
				      PAGE_BYTES;
		}
	}
	return 0;
}

static int run(struct work *work, unsigned thread, struct error *err)
{
	struct epoch_reader reader;
	int rc = epoch_reader_init(&reader, err);

	if (rc < 0)
		return rc;
	rc = restore_chunks(work->arg, work, &reader, err);
	epoch_reader_done(&reader);
	return rc;
}

static uint64_t bytes_of(const struct chain *chain)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < chain->nsources; i++)
		pages += (unsigned)__builtin_popcountll(chain->source[i].pages);
	return pages * PAGE_BYTES;
}

int chain_restore(const struct chain *chain, int memfd, unsigned threads,
		  const struct progress *progress, struct restore_report *report, struct error *err)
{
	uint64_t start = io_now_ns(), bytes = bytes_of(chain);
	struct restore r = {.chain = chain};
	struct work work = {.threads = threads ? threads : work_threads(bytes),
			    .run = run,
			    .arg = &r,
			    .progress = progress,
			    .what = "reading",
			    .total = bytes};
	struct stat st;
	void *map;
	int rc;

	if (fstat(memfd, &st) < 0)
		return error_errno(err, -errno, "cannot examine guest memory");
	if ((uint64_t)st.st_size < chain->memory)
		return error_set(err, -EINVAL,
				 "guest memory has %lld bytes, the checkpoint %" PRIu64,
				 (long long)st.st_size, chain->memory);
	map = mmap(NULL, chain->memory, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map guest memory");
	r.memory = map;
	rc = work_run(&work, err);
	munmap(map, chain->memory);
	if (rc == 0 && report)
		*report = (struct restore_report){work.threads, bytes, io_now_ns() - start};
	return rc;
}
