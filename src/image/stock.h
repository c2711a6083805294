/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_STOCK_H
#define WISP_IMAGE_STOCK_H

/* Where the bytes of an image come from that is given to others: a whole one, or one that is still
 * arriving. One thread. */

#include "image/chunks.h"
#include "lib/digest.h"

struct error;
struct image;

struct stock {
	char digest[DIGEST_TEXT];
	char *manifest, *signature; /* as in the files; signature NULL: none */
	size_t manifest_size, signature_size;
	struct chunks chunks;
	int parts[CHUNK_PARTS];
	int have, lock; /* of one that is arriving; -1: it is whole */
};

/* An open image; err is of that. */
int stock_open(const struct image *image, struct stock *ret, struct error *err);

/* One that is arriving in a store. -ENOENT: none is. */
int stock_open_arriving(const char *store, const char *digest, struct stock *ret,
			struct error *err);
void stock_close(struct stock *stock);

/* Whether chunk i is there by now. */
bool stock_has(const struct stock *stock, uint32_t i);

/* Whether somebody brings what is not there. */
bool stock_grows(const struct stock *stock);

/* Whether who brings it has this token. */
bool stock_is_brought_by(const struct stock *stock, const uint8_t *token);

/* Reads chunk i, which is there, into a buffer of CHUNK_SIZE; its size in *ret. */
int stock_read(const struct stock *stock, uint32_t i, void *buf, uint32_t *ret, struct error *err);

#endif
