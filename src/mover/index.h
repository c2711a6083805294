/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_INDEX_H
#define WISP_MOVER_INDEX_H

/*
 * The index of one epoch: who it is, the saved state, and a row for each piece of page data
 * (docs/formats/checkpoint.md). Any thread; an index that is only read may be shared.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"
#include "lib/wire.h"

struct error;

#define PAGE_BYTES 4096u
#define CHUNK_PAGES 64u
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_BYTES)
#define CHUNK_RAW_ALIGN PAGE_BYTES /* place of uncompressed data in a page file */
#define CHUNK_PACKED_ALIGN 64u
#define INDEX_VERSION 1
#define INDEX_MAX_FILES 1024u
#define INDEX_MAX_MEMORY (1ull << 48)

enum compression {
	COMPRESSION_NONE,
	COMPRESSION_LZ4,
	COMPRESSION_ZSTD,
	COMPRESSION_COUNT,
};

#define ROW_SIZE 48

struct row {
	uint64_t chunk;
	uint64_t stored, zero; /* bit i: page i of the chunk */
	uint64_t offset;
	uint32_t length;
	uint32_t sum;
	uint16_t file;
	uint8_t compression;
};

struct index {
	uint64_t memory; /* bytes */
	uint64_t epoch;
	uint64_t parent_epoch;	  /* 0: full */
	char parent[DIGEST_TEXT]; /* identity of the parent, "" when full */
	uint64_t time;		  /* ns since 1970 */
	uint32_t files;
	uint8_t *state;
	uint64_t state_size;
	struct row *rows; /* sorted by chunk; of one chunk the later wins */
	size_t nrows;
};

static inline uint64_t index_chunks(uint64_t memory)
{
	return (memory + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

/* The pages that a chunk has: all, except that the last chunk may have fewer. */
static inline uint64_t index_chunk_mask(uint64_t memory, uint64_t chunk)
{
	uint64_t pages = memory / PAGE_BYTES - chunk * CHUNK_PAGES;

	return pages >= CHUNK_PAGES ? ~0ull : (1ull << pages) - 1;
}

/* Number of stored pages. */
static inline unsigned row_pages(const struct row *row)
{
	return (unsigned)__builtin_popcountll(row->stored);
}

void row_encode(struct wire_writer *w, const struct row *row);

/* Reads and checks a row by itself; 0 or -EBADMSG. The file and its size are index_check's. */
int row_decode(struct wire_reader *r, uint64_t memory, uint32_t files, struct row *ret,
	       struct error *err);

/* Writes the index as a stream of records. 0 or -errno. */
int index_write(int fd, const struct index *index, struct error *err);

/*
 * Reads an index of size bytes and checks everything in it; name is for errors. On success the
 * caller frees *ret with index_done(). -EBADMSG for damage, -EPROTONOSUPPORT for another version.
 */
int index_read(int fd, const char *name, uint64_t size, struct index *ret, struct error *err);

/* That all rows lie inside the page files of these sizes. 0 or -EBADMSG. */
int index_check(const struct index *index, const uint64_t *sizes, const char *name,
		struct error *err);

void index_done(struct index *index);

#endif
