/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint from a hostile hand. The first byte chooses what the rest is: an index as it is,
 * with right sums put into its records (so that what is behind the sums is reached), a manifest, or
 * compressed data. What was accepted is used as a restore does, and written again gives the same.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/wire.h"
#include "mover/compress.h"
#include "mover/index.h"
#include "mover/manifest.h"
#include "mover/record.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

/* Makes the sums and numbers of a stream of records right. */
static void mend(uint8_t *data, size_t size)
{
	uint32_t number = 0;

	for (size_t at = 0; size - at >= RECORD_HEADER_SIZE;) {
		struct wire_reader r = wire_reader(data + at + 8, 8);
		struct wire_writer w = wire_writer(data + at + 16, 16);
		uint64_t length = wire_get_u64(&r), left = size - at - RECORD_HEADER_SIZE;

		wire_put_u32(&w, crc32c(0, data + at + RECORD_HEADER_SIZE,
					length < left ? length : left));
		wire_put_u32(&w, number++);
		wire_put_u32(&w, 0);
		wire_put_u32(&w, crc32c(0, data + at, 28));
		at += RECORD_HEADER_SIZE;
		if (length > left)
			break;
		at += (length + 7 < left ? (length + 7) / 8 * 8 : left);
	}
}

static void same_again(const struct index *index, const uint8_t *data, size_t size)
{
	int fd = memfd_create("again", MFD_CLOEXEC);
	uint8_t *again = malloc(size + 1);

	require(fd >= 0 && again);
	require(index_write(fd, index, NULL) == 0);
	/* Optional records of unknown types, and how rows are divided, are not kept. */
	if (pread(fd, again, size + 1, 0) == (ssize_t)size)
		require(again[0] == data[0]);
	free(again);
	close(fd);
}

static void try_index(const uint8_t *data, size_t size)
{
	int fd = memfd_create("index", MFD_CLOEXEC);
	struct index index;
	struct error err = {{0}};

	require(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	if (index_read(fd, "index", size, &index, &err) == 0) {
		uint64_t sizes[INDEX_MAX_FILES] = {4096, 8192};

		for (size_t i = 0; i < index.nrows; i++) {
			const struct row *row = &index.rows[i];

			require(row->chunk < index_chunks(index.memory) &&
				(row->stored ? row->file < index.files : row->zero) &&
				row->length <= CHUNK_BYTES);
		}
		index_check(&index, sizes, "index", NULL);
		same_again(&index, data, size);
		index_done(&index);
	} else {
		require(err.text[0]);
	}
	close(fd);
}

static void try_mended(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	require(!!copy);
	memcpy(copy, data, size);
	mend(copy, size);
	try_index(copy, size);
	free(copy);
}

static void try_manifest(const uint8_t *data, size_t size)
{
	struct manifest m;
	struct error err = {{0}};

	if (manifest_parse((const char *)data, size, "manifest", &m, &err) == 0) {
		require(m.epoch && m.parent_epoch < m.epoch);
		manifest_done(&m);
	} else {
		require(err.text[0]);
	}
}

static void try_data(const uint8_t *data, size_t size)
{
	enum compression kind = size ? data[0] % COMPRESSION_COUNT : 0;
	struct compressor *c = NULL;
	uint8_t *out = malloc(CHUNK_BYTES);

	require(out && compressor_create(kind, &c) == 0);
	if (size > 2) {
		size_t raw = (size_t)(data[1] % 64 + 1) * PAGE_BYTES;
		uint8_t *packed = malloc(size);
		size_t n;

		compressor_unpack(c, kind, data + 2, size - 2, out, raw);
		/* What is packed comes back. */
		n = compressor_pack(c, data, size, packed, size);
		require(!n || (compressor_unpack(c, kind, packed, n, out, size) == 0 &&
			       !memcmp(out, data, size)));
		free(packed);
	}
	compressor_destroy(c);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const tries[])(const uint8_t *, size_t) = {try_index, try_mended,
								 try_manifest, try_data};

	if (size && size <= INPUT_MAX)
		tries[data[0] % 4](data + 1, size - 1);
	return 0;
}
