/* SPDX-License-Identifier: Apache-2.0 */
/* A round of pre-copy: what was written is collected, read and sent, by a thread a connection. */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"
#include "lib/io.h"
#include "mover/migrate-copy.h"
#include "mover/page.h"
#include "mover/work.h"

#define BLOCK 64u /* chunks that a thread collects at once: 16 MiB */

struct lane {
	uint8_t *data, *packed;
	struct compressor *compressor;
};

static size_t bitmap_bytes(const struct sender *s)
{
	return index_chunks(s->memory) * sizeof(uint64_t);
}

static int make_bitmap(struct sender *s, struct error *err)
{
	void *map;

	s->bitmap_fd = memfd_create("wisp-dirty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->bitmap_fd < 0 || ftruncate(s->bitmap_fd, (off_t)bitmap_bytes(s)) ||
	    fcntl(s->bitmap_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		return error_errno(err, -errno, "cannot make a bitmap");
	map = mmap(NULL, bitmap_bytes(s), PROT_READ | PROT_WRITE, MAP_SHARED, s->bitmap_fd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map a bitmap");
	s->bitmap = map;
	return 0;
}

int sender_init(struct sender *s, struct error *err)
{
	int rc = make_bitmap(s, err);

	if (rc < 0)
		return rc;
	s->lane = calloc(s->streams, sizeof(*s->lane));
	for (unsigned i = 0; s->lane && i < s->streams; i++) {
		struct lane *lane = &s->lane[i];

		if (posix_memalign((void **)&lane->data, PAGE_BYTES, CHUNK_BYTES) ||
		    posix_memalign((void **)&lane->packed, PAGE_BYTES, CHUNK_BYTES) ||
		    compressor_create(s->compression, &lane->compressor) < 0)
			return error_set(err, -ENOMEM, "out of memory");
	}
	return s->lane ? 0 : error_set(err, -ENOMEM, "out of memory");
}

void sender_done(struct sender *s)
{
	for (unsigned i = 0; i < s->streams; i++) {
		channel_close(&s->channel[i]);
		if (!s->lane)
			continue;
		free(s->lane[i].data);
		free(s->lane[i].packed);
		compressor_destroy(s->lane[i].compressor);
	}
	free(s->lane);
	s->lane = NULL;
	if (s->bitmap)
		munmap(s->bitmap, bitmap_bytes(s));
	if (s->bitmap_fd >= 0)
		close(s->bitmap_fd);
	s->bitmap = NULL;
	s->bitmap_fd = -1;
}

/* Reads the pages of the mask, one behind the other. */
static int read_pages(const struct sender *s, uint64_t chunk, uint64_t mask, uint8_t *out,
		      struct error *err)
{
	while (mask) {
		unsigned first = (unsigned)__builtin_ctzll(mask);
		uint64_t rest = ~(mask >> first);
		unsigned pages = rest ? (unsigned)__builtin_ctzll(rest) : CHUNK_PAGES;
		uint64_t at = (chunk * CHUNK_PAGES + first) * PAGE_BYTES;
		int rc = io_pread_full(s->memfd, out, (size_t)pages * PAGE_BYTES, (off_t)at);

		if (rc < 0)
			return error_errno(err, rc, "cannot read the VM's memory");
		out += (size_t)pages * PAGE_BYTES;
		mask &= pages == CHUNK_PAGES ? 0 : ~(((1ull << pages) - 1) << first);
	}
	return 0;
}

static int send_chunk(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		      struct error *err)
{
	struct lane *lane = &s->lane[stream];
	struct row row = {.chunk = chunk};
	const uint8_t *data = lane->data;
	size_t packed = 0;
	int rc = read_pages(s, chunk, mask, lane->data, err);

	if (rc < 0)
		return rc;
	row.zero = page_squeeze(lane->data, mask);
	row.stored = mask & ~row.zero;
	row.length = row_pages(&row) * PAGE_BYTES;
	if (s->compression && row.length)
		packed = compressor_pack(lane->compressor, lane->data, row.length, lane->packed,
					 CHUNK_BYTES);
	if (packed) {
		data = lane->packed;
		row.length = (uint32_t)packed;
		row.compression = (uint8_t)s->compression;
	}
	row.sum = row.length ? crc32c(0, data, row.length) : 0;
	s->count.bytes += row.length;
	s->count.pages += row_pages(&row);
	s->count.zero += (unsigned)__builtin_popcountll(row.zero);
	return message_send_pages(&s->channel[stream], &row, data, err);
}

/* Rows for a hole of the memfd need no reading. */
static int send_hole(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		     struct error *err)
{
	struct row row = {.chunk = chunk, .zero = mask};

	s->count.zero += (unsigned)__builtin_popcountll(mask);
	return message_send_pages(&s->channel[stream], &row, NULL, err);
}

static int send_block(struct sender *s, unsigned stream, uint64_t first, struct error *err)
{
	uint64_t end = first + BLOCK, pages = s->memory / PAGE_BYTES, data_at = 0;
	int rc;

	if (end > index_chunks(s->memory))
		end = index_chunks(s->memory);
	pages = end * CHUNK_PAGES < pages ? BLOCK * CHUNK_PAGES : pages - first * CHUNK_PAGES;
	rc = s->vmm->ops->dirty_collect(s->vmm, first * CHUNK_PAGES, pages, err);
	for (uint64_t c = first; rc == 0 && c < end; c++) {
		uint64_t mask = atomic_exchange(&s->bitmap[c], 0) & index_chunk_mask(s->memory, c);
		bool hole;

		if (s->failed)
			return error_set(err, -ECANCELED, "another connection failed");
		if (!mask)
			continue;
		if (data_at <= c * CHUNK_BYTES) {
			off_t at = lseek(s->memfd, (off_t)(c * CHUNK_BYTES), SEEK_DATA);

			/* ENXIO: nothing but a hole to the end. Others: no holes here. */
			data_at = at >= 0 ? (uint64_t)at : errno == ENXIO ? UINT64_MAX : 0;
		}
		hole = data_at >= (c + 1) * CHUNK_BYTES;
		rc = hole ? send_hole(s, stream, c, mask, err)
			  : send_chunk(s, stream, c, mask, err);
	}
	return rc;
}

static int stream_run(struct work *work, unsigned stream, struct error *err)
{
	struct sender *s = work->arg;
	uint64_t chunks = index_chunks(s->memory), first;
	int rc = 0;

	while (rc == 0 && (first = atomic_fetch_add(&s->next, BLOCK)) < chunks)
		rc = send_block(s, stream, first, err);
	if (rc == 0)
		rc = message_send_u64(&s->channel[stream], MESSAGE_SYNC, s->round, err);
	if (rc < 0)
		s->failed = true;
	return rc;
}

int sender_round(struct sender *s, uint64_t round, struct error *err)
{
	struct work work = {.threads = s->streams, .run = stream_run, .arg = s, .what = "sending"};

	s->round = round;
	s->next = 0;
	return work_run(&work, err);
}

int sender_left(struct sender *s, uint64_t *ret, struct error *err)
{
	uint64_t pages = s->memory / PAGE_BYTES, n = 0;
	int rc = s->vmm->ops->dirty_collect(s->vmm, 0, pages, err);

	if (rc < 0)
		return rc;
	for (uint64_t c = 0; c < index_chunks(s->memory); c++)
		n += (unsigned)__builtin_popcountll(s->bitmap[c] & index_chunk_mask(s->memory, c));
	*ret = n;
	return 0;
}
