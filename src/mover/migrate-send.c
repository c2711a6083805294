/* SPDX-License-Identifier: Apache-2.0 */
/* A round of pre-copy: what was written is collected, read and sent, by a thread a connection. */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/migrate-copy.h"
#include "mover/page.h"
#include "mover/work.h"

#define BLOCK 64u   /* chunks that a thread collects at once, at least: 16 MiB */
#define BLOCKS 512u /* at most: KVM looks at its whole log for each */

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

/* Without a map nothing is lent. */
static void map_memory(struct sender *s)
{
	struct statfs fs;
	void *map;

	if (s->compression || fstatfs(s->memfd, &fs))
		return;
	s->huge = fs.f_type == HUGETLBFS_MAGIC;
	map = mmap(NULL, s->memory, PROT_READ, MAP_SHARED, s->memfd, 0);
	if (map != MAP_FAILED)
		s->map = map;
}

int sender_init(struct sender *s, struct error *err)
{
	int rc = make_bitmap(s, err);

	if (rc < 0)
		return rc;
	map_memory(s);
	s->block = index_chunks(s->memory) / BLOCKS;
	if (s->block < BLOCK)
		s->block = BLOCK;
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
	if (s->map)
		munmap(s->map, s->memory);
	s->map = NULL;
	if (s->bitmap_fd >= 0)
		close(s->bitmap_fd);
	s->bitmap = NULL;
	s->bitmap_fd = -1;
}

/* Reads the pages of the mask, one behind the other. */
static int read_pages(const struct sender *s, uint64_t chunk, uint64_t mask, uint8_t *out,
		      struct error *err)
{
	unsigned first, pages;
	size_t n;
	int rc;

	while (mask) {
		mask = page_run(mask, &first, &pages);
		n = (size_t)pages * PAGE_BYTES;
		rc = io_pread_full(s->memfd, out, n,
				   (off_t)((chunk * CHUNK_PAGES + first) * PAGE_BYTES));

		if (rc < 0)
			return error_errno(err, rc, "cannot read the VM's memory");
		out += n;
	}
	return 0;
}

static void count(struct sender *s, const struct row *row)
{
	s->count.bytes += row->length;
	s->count.pages += row_pages(row);
	s->count.zero += (unsigned)__builtin_popcountll(row->zero);
}

/*
 * Pages that are not there are holes, or swapped out. Looking at them through the map would make
 * them be there, in the guest's memory; reading the file does not.
 */
static bool all_there(const struct sender *s, uint64_t chunk, uint64_t mask)
{
	unsigned char there[CHUNK_PAGES];
	uint64_t at = chunk * CHUNK_BYTES, left = s->memory - at;

	if (mincore(s->map + at, left < CHUNK_BYTES ? left : CHUNK_BYTES, there))
		return false;
	for (; mask; mask &= mask - 1)
		if (!(there[__builtin_ctzll(mask)] & 1))
			return false;
	return true;
}

static int lend_run(struct sender *s, unsigned stream, uint64_t at, size_t n, struct error *err)
{
	struct iovec iov = {s->map + at, n};

	if (!s->huge && channel_takes_files(&s->channel[stream]))
		return channel_send_file(&s->channel[stream], s->memfd, at, n, err);
	return channel_send(&s->channel[stream], &iov, 1, err);
}

/* Pages go from the VM's memory into the connection as they are at that moment, without a copy. */
static int lend_chunk(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		      struct error *err)
{
	struct row row = {.chunk = chunk, .zero = page_zeros(s->map + chunk * CHUNK_BYTES, mask)};
	unsigned first, pages;
	int rc;

	row.stored = mask = mask & ~row.zero;
	row.length = row_pages(&row) * PAGE_BYTES;
	count(s, &row);
	rc = message_send_row(&s->channel[stream], &row, err);
	while (rc == 0 && mask) {
		mask = page_run(mask, &first, &pages);
		rc = lend_run(s, stream, (chunk * CHUNK_PAGES + first) * PAGE_BYTES,
			      (size_t)pages * PAGE_BYTES, err);
	}
	return rc;
}

static int copy_chunk(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
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
	count(s, &row);
	return message_send_pages(&s->channel[stream], &row, data, err);
}

static int send_chunk(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		      struct error *err)
{
	if (s->map && channel_is_sound(&s->channel[stream]) && all_there(s, chunk, mask))
		return lend_chunk(s, stream, chunk, mask, err);
	return copy_chunk(s, stream, chunk, mask, err);
}

/* Rows for a hole of the memfd need no reading. */
static int send_hole(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		     struct error *err)
{
	struct row row = {.chunk = chunk, .zero = mask};

	count(s, &row);
	return message_send_pages(&s->channel[stream], &row, NULL, err);
}

int sender_pages(struct sender *s, unsigned stream, uint64_t chunk, uint64_t mask,
		 struct error *err)
{
	off_t at = lseek(s->memfd, (off_t)(chunk * CHUNK_BYTES), SEEK_DATA);
	bool hole = at < 0 ? errno == ENXIO : (uint64_t)at >= (chunk + 1) * CHUNK_BYTES;

	return hole ? send_hole(s, stream, chunk, mask, err)
		    : send_chunk(s, stream, chunk, mask, err);
}

static int send_block(struct sender *s, unsigned stream, uint64_t first, struct error *err)
{
	uint64_t end = first + s->block, pages = s->memory / PAGE_BYTES, data_at = 0;
	int rc = 0;

	if (end > index_chunks(s->memory))
		end = index_chunks(s->memory);
	pages = end * CHUNK_PAGES < pages ? s->block * CHUNK_PAGES : pages - first * CHUNK_PAGES;
	if (!s->collected)
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

	while (rc == 0 && (first = atomic_fetch_add(&s->next, s->block)) < chunks)
		rc = send_block(s, stream, first, err);
	if (rc == 0)
		rc = message_send_u64(&s->channel[stream], MESSAGE_SYNC, s->round, err);
	if (rc < 0)
		s->failed = true;
	return rc;
}

int sender_round(struct sender *s, uint64_t round, bool few, struct error *err)
{
	struct work work = {
		.threads = s->streams, .run = stream_run, .arg = s, .what = "sending", .all = true};
	int rc = 0;

	s->round = round;
	s->next = 0;
	s->collected = few;
	if (few)
		rc = s->vmm->ops->dirty_collect(s->vmm, 0, s->memory / PAGE_BYTES, err);
	return rc < 0 ? rc : work_run(&work, err);
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
