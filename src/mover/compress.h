/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_COMPRESS_H
#define WISP_MOVER_COMPRESS_H

/* Compression of the data of one row. A compressor belongs to one thread. */

#include <stddef.h>
#include <stdint.h>

#include "mover/index.h"

struct error;
struct compressor;

/* "none", "lz4", "zstd". 0 or -EINVAL with the names. */
int compression_parse(const char *text, enum compression *ret, struct error *err);
const char *compression_name(enum compression kind);

/* 0 or -ENOMEM. It can decompress every kind. */
int compressor_create(enum compression kind, struct compressor **ret);
void compressor_destroy(struct compressor *c);

/*
 * Compresses n bytes (at most CHUNK_BYTES) into room bytes. Returns the length, or 0 when it does
 * not become smaller by a sixteenth: store it as it is then.
 */
size_t compressor_pack(struct compressor *c, const void *data, size_t n, void *out, size_t room);

/* Decompresses exactly raw bytes. 0 or -EBADMSG. */
int compressor_unpack(struct compressor *c, enum compression kind, const void *data, size_t n,
		      void *out, size_t raw);

#endif
