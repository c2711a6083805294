/* SPDX-License-Identifier: Apache-2.0 */
/* The index of an epoch: head, state and rows as records. */

#include "mover/index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/record.h"

#define MAGIC "WISPCKPT"
#define HEAD_SIZE 96
#define IDENTITY_SIZE 32
#define ROWS_A_RECORD 4096u

/* An identity is hexadecimal text in memory and 32 bytes in the head; "" is all zeros. */
static void put_identity(struct wire_writer *w, const char *text)
{
	for (unsigned i = 0; i < IDENTITY_SIZE; i++) {
		unsigned byte = 0;

		if (*text)
			sscanf(text + 2 * i, "%2x", &byte);
		wire_put_u8(w, (uint8_t)byte);
	}
}

static void get_identity(struct wire_reader *r, char text[DIGEST_TEXT])
{
	uint8_t all = 0;

	for (unsigned i = 0; i < IDENTITY_SIZE; i++) {
		uint8_t byte = wire_get_u8(r);

		snprintf(text + 2 * i, 3, "%02x", byte);
		all |= byte;
	}
	if (!all)
		text[0] = 0;
}

void row_encode(struct wire_writer *w, const struct row *row)
{
	wire_put_u64(w, row->chunk);
	wire_put_u64(w, row->stored);
	wire_put_u64(w, row->zero);
	wire_put_u64(w, row->offset);
	wire_put_u32(w, row->length);
	wire_put_u32(w, row->sum);
	wire_put_u16(w, row->file);
	wire_put_u8(w, row->compression);
	wire_put_u8(w, 0);
	wire_put_u32(w, 0);
}

static bool data_fits(const struct row *row, uint32_t files)
{
	uint32_t raw = row_pages(row) * PAGE_BYTES;

	if (!row->stored)
		return row->zero && !row->offset && !row->length && !row->sum && !row->file &&
		       !row->compression;
	if (row->file >= files || row->compression >= COMPRESSION_COUNT)
		return false;
	if (row->compression == COMPRESSION_NONE)
		return row->length == raw && !(row->offset % CHUNK_RAW_ALIGN);
	return row->length && row->length < raw && !(row->offset % CHUNK_PACKED_ALIGN);
}

int row_decode(struct wire_reader *r, uint64_t memory, uint32_t files, struct row *ret,
	       struct error *err)
{
	struct row row = {
		.chunk = wire_get_u64(r),
		.stored = wire_get_u64(r),
		.zero = wire_get_u64(r),
		.offset = wire_get_u64(r),
		.length = wire_get_u32(r),
		.sum = wire_get_u32(r),
		.file = wire_get_u16(r),
		.compression = wire_get_u8(r),
	};
	uint8_t reserved = wire_get_u8(r);

	if (wire_get_u32(r) || reserved || !wire_ok(r) || row.chunk >= index_chunks(memory) ||
	    (row.stored | row.zero) & ~index_chunk_mask(memory, row.chunk) ||
	    row.stored & row.zero || !data_fits(&row, files))
		return error_set(err, -EBADMSG, "the row of chunk %" PRIu64 " cannot be",
				 row.chunk);
	*ret = row;
	return 0;
}

static int write_head(struct record_writer *w, const struct index *index)
{
	uint8_t body[HEAD_SIZE];
	struct wire_writer out = wire_writer(body, sizeof(body));

	wire_put_bytes(&out, MAGIC, strlen(MAGIC));
	wire_put_u32(&out, INDEX_VERSION);
	wire_put_u32(&out, CHUNK_PAGES);
	wire_put_u64(&out, PAGE_BYTES);
	wire_put_u64(&out, index->memory);
	wire_put_u64(&out, index->epoch);
	wire_put_u64(&out, index->parent_epoch);
	put_identity(&out, index->parent);
	wire_put_u64(&out, index->time);
	wire_put_u32(&out, index->files);
	wire_put_u32(&out, 0);
	return record_append(w, RECORD_HEAD, 0, body, out.pos);
}

static int write_rows(struct record_writer *w, const struct index *index)
{
	CLEANUP_FREE uint8_t *body = malloc((size_t)ROWS_A_RECORD * ROW_SIZE);
	int rc = body ? 0 : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < index->nrows;) {
		struct wire_writer out = wire_writer(body, (size_t)ROWS_A_RECORD * ROW_SIZE);

		while (i < index->nrows && out.pos < out.size)
			row_encode(&out, &index->rows[i++]);
		rc = record_append(w, RECORD_ROWS, 0, body, out.pos);
	}
	return rc;
}

int index_write(int fd, const struct index *index, struct error *err)
{
	struct record_writer w = {.fd = fd};
	uint64_t count = htole64(index->nrows);
	int rc = write_head(&w, index);

	if (rc == 0)
		rc = record_append(&w, RECORD_STATE, 0, index->state, index->state_size);
	if (rc == 0)
		rc = write_rows(&w, index);
	if (rc == 0)
		rc = record_append(&w, RECORD_END, 0, &count, sizeof(count));
	if (rc < 0)
		return error_errno(err, rc, "cannot write the index");
	return 0;
}

static int damaged(const struct record_reader *r, struct error *err)
{
	return error_set(err, -EBADMSG, "%s: record %" PRIu32 " does not belong there or cannot be",
			 r->name, r->next - 1);
}

static int read_head(struct record_reader *r, struct index *index, struct error *err)
{
	struct wire_reader in;
	const char *magic;
	uint32_t version;
	uint64_t shape;
	int rc = record_next(r, err);

	if (rc < 0)
		return rc;
	in = wire_reader(r->body, r->length);
	magic = wire_get_bytes(&in, strlen(MAGIC));
	if (r->type != RECORD_HEAD || !magic || memcmp(magic, MAGIC, strlen(MAGIC)))
		return error_set(err, -EBADMSG, "%s is no index of a checkpoint", r->name);
	version = wire_get_u32(&in);
	if (version != INDEX_VERSION)
		return error_set(err, -EPROTONOSUPPORT,
				 "%s has version %" PRIu32 ", this program reads %d: use the "
				 "version of Wisp that wrote it",
				 r->name, version, INDEX_VERSION);
	shape = wire_get_u32(&in) ^ CHUNK_PAGES;
	shape |= wire_get_u64(&in) ^ PAGE_BYTES;
	index->memory = wire_get_u64(&in);
	index->epoch = wire_get_u64(&in);
	index->parent_epoch = wire_get_u64(&in);
	get_identity(&in, index->parent);
	index->time = wire_get_u64(&in);
	index->files = wire_get_u32(&in);
	shape |= wire_get_u32(&in);
	if (!wire_done(&in) || shape || !index->memory || index->memory % PAGE_BYTES ||
	    index->memory > INDEX_MAX_MEMORY || index->parent_epoch >= index->epoch ||
	    !index->parent_epoch != !index->parent[0] || index->files > INDEX_MAX_FILES)
		return damaged(r, err);
	return 0;
}

static int read_state(struct record_reader *r, struct index *index, struct error *err)
{
	int rc = record_next(r, err);

	if (rc < 0)
		return rc;
	if (r->type != RECORD_STATE)
		return damaged(r, err);
	index->state = take_ptr(r->body);
	index->state_size = r->length;
	r->room = 0;
	return 0;
}

static int add_rows(struct record_reader *r, struct index *index, size_t *room, struct error *err)
{
	struct wire_reader in = wire_reader(r->body, r->length);
	size_t n = r->length / ROW_SIZE;

	if (r->length % ROW_SIZE || !n || n > ROWS_A_RECORD)
		return damaged(r, err);
	if (index->nrows + n > *room) {
		size_t more = (index->nrows + n) * 2;
		struct row *bigger = realloc(index->rows, more * sizeof(*bigger));

		if (!bigger)
			return error_set(err, -ENOMEM, "%s: out of memory", r->name);
		index->rows = bigger;
		*room = more;
	}
	while (n--) {
		struct row *row = &index->rows[index->nrows];
		int rc = row_decode(&in, index->memory, index->files, row, err);

		if (rc < 0)
			return error_prefix(err, rc, "%s", r->name);
		if (index->nrows && row->chunk < row[-1].chunk)
			return damaged(r, err);
		index->nrows++;
	}
	return 0;
}

static int read_rows(struct record_reader *r, struct index *index, struct error *err)
{
	struct wire_reader in;
	size_t room = 0;

	for (;;) {
		int rc = record_next(r, err);

		if (rc == 0 && r->type == RECORD_END)
			break;
		if (rc == 0 && r->type != RECORD_ROWS)
			rc = damaged(r, err);
		if (rc == 0)
			rc = add_rows(r, index, &room, err);
		if (rc < 0)
			return rc;
	}
	in = wire_reader(r->body, r->length);
	if (wire_get_u64(&in) != index->nrows || !wire_done(&in) || r->left)
		return damaged(r, err);
	return 0;
}

int index_read(int fd, const char *name, uint64_t size, struct index *ret, struct error *err)
{
	struct record_reader r = {.fd = fd, .name = name, .left = size};
	struct index index = {0};
	int rc = read_head(&r, &index, err);

	if (rc == 0)
		rc = read_state(&r, &index, err);
	if (rc == 0)
		rc = read_rows(&r, &index, err);
	record_reader_done(&r);
	if (rc < 0)
		index_done(&index);
	else
		*ret = index;
	return rc;
}

int index_check(const struct index *index, const uint64_t *sizes, const char *name,
		struct error *err)
{
	for (size_t i = 0; i < index->nrows; i++) {
		const struct row *row = &index->rows[i];

		if (row->stored && (row->length > sizes[row->file] ||
				    row->offset > sizes[row->file] - row->length))
			return error_set(err, -EBADMSG,
					 "%s: chunk %" PRIu64 " is behind the end of pages.%u",
					 name, row->chunk, row->file);
	}
	return 0;
}

void index_done(struct index *index)
{
	free(index->state);
	free(index->rows);
	*index = (struct index){0};
}
