/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of an epoch that is written: where they come from, and into the files of its threads. */

#include "mover/write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/crc32c.h"
#include "mover/page.h"
#include "mover/write-parts.h"

#define BLOCK 16u /* chunks that a thread takes at once */
#define DIRECT_MIN (64ull << 20)

/* One call of writer_pages(). */
struct pass {
	struct writer *w;
	writer_source source;
	void *arg;
	const uint64_t *bitmap;
};

static int lane_begin(struct writer *w, struct lane *lane, struct error *err)
{
	bool direct = w->options.direct == DIRECT_ON ||
		      (w->options.direct == DIRECT_AUTO && w->options.memory >= DIRECT_MIN &&
		       !w->options.parent);
	int rc;

	lane->number = w->files++;
	rc = pagefile_begin(&lane->file, w->dir, lane->number, direct, err);
	return rc < 0 ? error_prefix(err, rc, "checkpoint %s", w->store->path) : 0;
}

static int lane_add(struct lane *lane, const struct row *row, uint32_t round, struct error *err)
{
	if (lane->nrows == lane->room) {
		size_t more = lane->room ? 2 * lane->room : 256;
		struct numbered_row *bigger = realloc(lane->rows, more * sizeof(*bigger));

		if (!bigger)
			return writer_no_memory(err);
		lane->rows = bigger;
		lane->room = more;
	}
	lane->rows[lane->nrows++] = (struct numbered_row){*row, round};
	return 0;
}

/* Compresses the pages in scratch into the file, or puts them there as they are. */
static int store_packed(struct lane *lane, struct row *row, struct error *err)
{
	size_t raw = row_pages(row) * PAGE_BYTES, n;
	uint8_t *to;
	int rc = pagefile_reserve(&lane->file, raw, CHUNK_PACKED_ALIGN, &to, err);

	if (rc < 0)
		return rc;
	n = compressor_pack(lane->compressor, lane->scratch, raw, to, raw);
	if (!n) {
		rc = pagefile_reserve(&lane->file, raw, CHUNK_RAW_ALIGN, &to, err);
		if (rc < 0)
			return rc;
		memcpy(to, lane->scratch, raw);
		row->compression = COMPRESSION_NONE;
		n = raw;
	}
	row->length = (uint32_t)n;
	row->sum = crc32c(0, to, n);
	row->offset = pagefile_add(&lane->file, n);
	return 0;
}

/* Fetches, squeezes and stores the wanted pages of a chunk. */
static int write_chunk(struct pass *pass, struct lane *lane, unsigned thread, uint64_t chunk,
		       uint64_t wanted, struct error *err)
{
	struct writer *w = pass->w;
	struct row row = {.chunk = chunk, .compression = (uint8_t)w->options.compression};
	size_t size = (size_t)__builtin_popcountll(wanted) * PAGE_BYTES;
	uint8_t *to = lane->scratch;
	int rc = lane->file.buf ? 0 : lane_begin(w, lane, err);

	if (rc == 0 && !to)
		rc = pagefile_reserve(&lane->file, size, CHUNK_RAW_ALIGN, &to, err);
	if (rc == 0)
		rc = pass->source(pass->arg, thread, chunk, wanted, to, err);
	if (rc < 0)
		return rc;
	row.zero = page_squeeze(to, wanted);
	row.stored = wanted & ~row.zero;
	lane->zero += (unsigned)__builtin_popcountll(row.zero);
	lane->pages += row_pages(&row);
	/* Of a full epoch what no row has is zero already. */
	if (!w->options.parent && !w->round)
		row.zero = 0;
	if (!row.stored && !row.zero)
		return 0;
	if (row.stored) {
		row.file = (uint16_t)lane->number;
		row.length = row_pages(&row) * PAGE_BYTES;
		if (lane->scratch) {
			rc = store_packed(lane, &row, err);
		} else {
			row.sum = crc32c(0, to, row.length);
			row.offset = pagefile_add(&lane->file, row.length);
		}
		if (rc < 0)
			return error_prefix(err, rc, "checkpoint %s", w->store->path);
		lane->bytes += row.length;
	} else {
		row.compression = 0;
	}
	return lane_add(lane, &row, w->round, err);
}

static int run_pass(struct work *work, unsigned thread, struct error *err)
{
	struct pass *pass = work->arg;
	struct writer *w = pass->w;
	struct lane *lane = &w->lane[thread];
	uint64_t chunks = index_chunks(w->options.memory), first;

	while ((first = atomic_fetch_add(&work->next, BLOCK)) < chunks) {
		for (uint64_t c = first; c < first + BLOCK && c < chunks; c++) {
			uint64_t mask = index_chunk_mask(w->options.memory, c);
			uint64_t wanted = pass->bitmap ? pass->bitmap[c] & mask : mask;
			int rc = work_check(work, err);

			if (rc == 0 && wanted)
				rc = write_chunk(pass, lane, thread, c, wanted, err);
			if (rc < 0)
				return rc;
			work->done += (unsigned)__builtin_popcountll(wanted) * PAGE_BYTES;
		}
	}
	return 0;
}

static uint64_t count_pages(const struct writer *w, const uint64_t *bitmap)
{
	uint64_t n = 0;

	for (uint64_t c = 0; c < index_chunks(w->options.memory); c++)
		n += (unsigned)__builtin_popcountll(bitmap[c] &
						    index_chunk_mask(w->options.memory, c));
	return n;
}

int writer_pages_from(struct writer *w, writer_source fn, void *arg, const uint64_t *bitmap,
		      struct error *err)
{
	struct pass pass = {.w = w, .source = fn, .arg = arg, .bitmap = bitmap};
	struct work work = {.threads = w->threads,
			    .run = run_pass,
			    .arg = &pass,
			    .progress = w->options.progress,
			    .what = "writing",
			    .gentle = w->gentle,
			    .total = bitmap ? count_pages(w, bitmap) * PAGE_BYTES
					    : w->options.memory};
	uint64_t start = io_now_ns();
	int rc = work_run(&work, err);

	w->pages_ns += io_now_ns() - start;
	w->round++;
	return rc;
}

/* Reads the wanted pages run by run. Nothing is mapped: a hole stays one, no page is faulted in. */
static int read_memfd(void *arg, unsigned thread, uint64_t chunk, uint64_t wanted, uint8_t *out,
		      struct error *err)
{
	int fd = *(int *)arg;

	while (wanted) {
		unsigned first = (unsigned)__builtin_ctzll(wanted);
		uint64_t rest = ~(wanted >> first);
		unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : CHUNK_PAGES - first;
		int rc = io_pread_full(fd, out, (size_t)n * PAGE_BYTES,
				       (off_t)(chunk * CHUNK_BYTES + first * PAGE_BYTES));

		if (rc < 0)
			return error_errno(err, rc, "cannot read guest memory");
		out += (size_t)n * PAGE_BYTES;
		wanted = first + n == 64 ? 0 : wanted >> (first + n) << (first + n);
	}
	return 0;
}

static void set_bits(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	for (; first < end && first % 64; first++)
		bitmap[first / 64] |= 1ull << first % 64;
	for (; first + 64 <= end; first += 64)
		bitmap[first / 64] = ~0ull;
	for (; first < end; first++)
		bitmap[first / 64] |= 1ull << first % 64;
}

/* A bitmap of the pages that are not in holes; *ret stays NULL where holes cannot be told. */
static int find_data(int fd, uint64_t memory, uint64_t **ret, struct error *err)
{
	CLEANUP_FREE uint64_t *bitmap = calloc(index_chunks(memory), sizeof(*bitmap));
	off_t end = 0;

	if (!bitmap)
		return writer_no_memory(err);
	while ((uint64_t)end < memory) {
		off_t start = lseek(fd, end, SEEK_DATA);

		if (start < 0 && errno == ENXIO)
			break;
		end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return 0;
		if ((uint64_t)end > memory)
			end = (off_t)memory;
		set_bits(bitmap, (uint64_t)start / PAGE_BYTES,
			 ((uint64_t)end + PAGE_BYTES - 1) / PAGE_BYTES);
	}
	*ret = take_ptr(bitmap);
	return 0;
}

int writer_pages(struct writer *w, int memfd, const uint64_t *bitmap, struct error *err)
{
	CLEANUP_FREE uint64_t *data = NULL;
	uint64_t start = io_now_ns();
	struct stat st;
	int rc = 0;

	if (fstat(memfd, &st) < 0)
		return error_errno(err, -errno, "cannot examine guest memory");
	if ((uint64_t)st.st_size < w->options.memory)
		return error_set(err, -EINVAL, "guest memory has %lld bytes, not %" PRIu64,
				 (long long)st.st_size, w->options.memory);
	if (!bitmap)
		rc = find_data(memfd, w->options.memory, &data, err);
	w->scan_ns += io_now_ns() - start;
	if (rc < 0)
		return rc;
	return writer_pages_from(w, read_memfd, &memfd, bitmap ? bitmap : data, err);
}
