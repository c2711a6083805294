/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_EPOCH_H
#define WISP_MOVER_EPOCH_H

/*
 * One epoch, opened and checked: manifest, index, sizes of all files. What it has open stays
 * readable when the epoch is removed. Several threads may read one at once.
 */

#include <stdint.h>

#include "mover/compress.h"
#include "mover/index.h"
#include "mover/manifest.h"
#include "mover/store.h"

struct epoch {
	char *name; /* DIR/N, for errors */
	int dir;
	struct manifest manifest;
	struct index index;
	int *file; /* page files */
};

/* Only the manifest of an epoch; free with manifest_done(). -ENOENT when there is no such epoch. */
int epoch_manifest(const struct store *store, uint64_t number, struct manifest *ret,
		   struct error *err);

/* -ENOENT when there is no such epoch, -EBADMSG for damage. Close with epoch_close(). */
int epoch_open(const struct store *store, uint64_t number, struct epoch *ret, struct error *err);
void epoch_close(struct epoch *epoch);

/* What one thread needs to read data of rows. */
struct epoch_reader {
	struct compressor *compressor;
	uint8_t *packed, *raw; /* CHUNK_BYTES each, aligned to pages */
};

int epoch_reader_init(struct epoch_reader *reader, struct error *err);
void epoch_reader_done(struct epoch_reader *reader);

/*
 * Reads the data of a row, checks their sum and decompresses them: *ret points to the stored
 * pages, one behind the other, in the reader's memory.
 */
int epoch_read(const struct epoch *epoch, const struct row *row, struct epoch_reader *reader,
	       const uint8_t **ret, struct error *err);

/*
 * The same, with page i of the chunk to chunk + 4096 * i for the pages in wanted, which are stored.
 * Uncompressed data are read right there.
 */
int epoch_scatter(const struct epoch *epoch, const struct row *row, uint64_t wanted,
		  struct epoch_reader *reader, uint8_t *chunk, struct error *err);

#endif
