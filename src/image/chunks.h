/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_CHUNKS_H
#define WISP_IMAGE_CHUNKS_H

/* The parts of an image as numbered chunks (docs/formats/image-stream.md). Any thread. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define CHUNK_SIZE (4u << 20)
#define CHUNKS_MAX (1u << 18)
#define CHUNK_PARTS 4

struct chunks {
	json_t *manifest; /* a reference */
	struct chunk_part {
		uint64_t size;
		uint32_t first, n;
	} parts[CHUNK_PARTS];
	uint32_t n;
	uint64_t bytes;
	const char **digests; /* the manifest's */
};

/* Where one is. */
struct chunk_at {
	unsigned part; /* of image_parts */
	uint64_t offset;
	uint32_t size;
};

/*
 * Checks what a manifest says of the parts, which may come from anybody, and takes it. -EBADMSG;
 * -ENODATA: it is of a version that did not know of chunks.
 */
int chunks_from_manifest(json_t *manifest, struct chunks *ret, struct error *err);
void chunks_done(struct chunks *chunks);

/* i < n. */
struct chunk_at chunks_at(const struct chunks *chunks, uint32_t i);

/* Whether these are the bytes of chunk i. */
bool chunks_is(const struct chunks *chunks, uint32_t i, const void *data, size_t size);

/* The digests of a file's chunks, for a manifest: new reference. */
int chunks_of_file(const char *path, json_t **ret, struct error *err);

/* A bit for each chunk. */
static inline bool chunk_bit(const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] >> i % 8 & 1;
}

static inline void chunk_set_bit(uint8_t *bits, uint32_t i)
{
	bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static inline size_t chunk_bits_size(uint32_t n)
{
	return ((size_t)n + 7) / 8;
}

#endif
