/* SPDX-License-Identifier: Apache-2.0 */
/* Eager restores: all pages of a chain into guest memory, by several threads. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"

#define BLOCK 16u /* chunks that a thread takes at once */

/*
 * Chunks are read into a buffer that stays in the core's cache and written to the memfd: the
 * kernel then makes whole pages, where a mapping would have it zero each first, in a fault of its
 * own. Huge pages can only be mapped.
 */
struct restore {
	const struct chain *chain;
	int memfd;
	uint8_t *map; /* NULL: by writing */
};

int chain_write_chunk(const struct chain *chain, uint64_t chunk, const uint8_t *data, int memfd,
		      struct error *err)
{
	uint64_t pages = chain_pages(chain, chunk);

	while (pages) {
		unsigned first = (unsigned)__builtin_ctzll(pages);
		uint64_t rest = ~(pages >> first);
		unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : CHUNK_PAGES - first;
		size_t at = (size_t)first * PAGE_BYTES, end = at + (size_t)n * PAGE_BYTES;

		while (at < end) {
			ssize_t got = pwrite(memfd, data + at, end - at,
					     (off_t)(chunk * CHUNK_BYTES + at));

			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0)
				return error_errno(err, got ? -errno : -EIO,
						   "cannot write guest memory");
			at += (size_t)got;
		}
		pages = first + n == CHUNK_PAGES ? 0 : pages >> (first + n) << (first + n);
	}
	return 0;
}

static int restore_chunk(const struct restore *r, uint64_t chunk, struct epoch_reader *reader,
			 uint8_t *buf, struct error *err)
{
	uint8_t *to = r->map ? r->map + chunk * CHUNK_BYTES : buf;
	int rc = chain_read_chunk(r->chain, chunk, reader, to, err);

	return rc < 0 || r->map ? rc : chain_write_chunk(r->chain, chunk, buf, r->memfd, err);
}

static int restore_chunks(const struct restore *r, struct work *work, struct epoch_reader *reader,
			  uint8_t *buf, struct error *err)
{
	uint64_t first;

	while ((first = atomic_fetch_add(&work->next, BLOCK)) < r->chain->chunks) {
		uint64_t end = first + BLOCK;

		for (uint64_t c = first; c < end && c < r->chain->chunks; c++) {
			int rc = work_check(work, err);

			if (rc == 0)
				rc = restore_chunk(r, c, reader, buf, err);
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
	CLEANUP_FREE uint8_t *buf = NULL;
	struct epoch_reader reader;
	int rc = epoch_reader_init(&reader, err);

	if (rc < 0)
		return rc;
	if (posix_memalign((void **)&buf, PAGE_BYTES, CHUNK_BYTES))
		rc = error_set(err, -ENOMEM, "out of memory");
	else
		rc = restore_chunks(work->arg, work, &reader, buf, err);
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
	struct restore r = {.chain = chain, .memfd = memfd};
	struct work work = {.threads = threads ? threads : work_threads(bytes),
			    .run = run,
			    .arg = &r,
			    .progress = progress,
			    .what = "reading",
			    .total = bytes};
	struct stat st;
	void *map = NULL;
	int rc;

	if (fstat(memfd, &st) < 0)
		return error_errno(err, -errno, "cannot examine guest memory");
	if ((uint64_t)st.st_size < chain->memory)
		return error_set(err, -EINVAL,
				 "guest memory has %lld bytes, the checkpoint %" PRIu64,
				 (long long)st.st_size, chain->memory);
	if (pwrite(memfd, "", 0, 0) < 0)
		map = mmap(NULL, chain->memory, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map guest memory");
	r.map = map;
	rc = work_run(&work, err);
	if (map)
		munmap(map, chain->memory);
	if (rc == 0 && report)
		*report = (struct restore_report){work.threads, bytes, io_now_ns() - start};
	return rc;
}
