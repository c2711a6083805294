/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_SEND_H
#define WISP_IMAGE_SEND_H

/* Records that say what an image is and has. One thread. */

#include "image/flow.h"
#include "image/stock.h"

/* A digest of 64 digits as bytes, and back. */
void digest_to_bytes(const char *text, uint8_t ret[32]);
void digest_from_bytes(const uint8_t bytes[32], char ret[DIGEST_TEXT]);

int send_image(struct flow *s, const struct stock *stock, struct error *err);
int send_chunk(struct flow *s, uint32_t i, const void *data, uint32_t size, struct error *err);

#endif
