/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_WRITE_PARTS_H
#define WISP_MOVER_WRITE_PARTS_H

/*
 * The writer of epochs, for its parts alone: write.c begins and ends it, write-pages.c writes
 * pages, write-commit.c makes an epoch of them.
 */

#include "mover/index.h"
#include "mover/pagefile.h"
#include "mover/write.h"

/* A row with the number of the call that made it, for the order within a chunk. */
struct numbered_row {
	struct row row;
	uint32_t round;
};

struct lane { /* of one thread */
	struct pagefile file;
	unsigned number; /* of the file */
	uint8_t *scratch;
	struct compressor *compressor;
	struct numbered_row *rows;
	size_t nrows, room;
	uint64_t pages, zero, bytes;
};

struct writer {
	const struct store *store;
	struct writer_options options;
	uint64_t epoch;
	bool replace, gentle;
	bool committed;
	int dir;
	char parent[DIGEST_TEXT];
	unsigned threads;
	struct lane *lane;
	_Atomic unsigned files;
	uint32_t round;
	uint64_t created, scan_ns, pages_ns, sync_ns;
};

/* -ENOMEM. */
int writer_no_memory(struct error *err);

#endif
