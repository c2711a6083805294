/* SPDX-License-Identifier: Apache-2.0 */
/* Records that say what an image is and has. */

#include "image/send.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/wire.h"

void digest_to_bytes(const char *text, uint8_t ret[32])
{
	for (unsigned i = 0; i < 32; i++) {
		char byte[3] = {text[2 * i], text[2 * i + 1], 0};

		ret[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
}

void digest_from_bytes(const uint8_t bytes[32], char ret[DIGEST_TEXT])
{
	for (unsigned i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

int send_image(struct flow *s, const struct stock *stock, struct error *err)
{
	size_t size = stock->manifest_size + stock->signature_size;
	CLEANUP_FREE uint8_t *texts = malloc(size + 1);
	uint8_t head[36];
	struct wire_writer w = wire_writer(head + 32, 4);

	if (!texts)
		return error_set(err, -ENOMEM, "out of memory");
	digest_to_bytes(stock->digest, head);
	wire_put_u32(&w, (uint32_t)stock->manifest_size);
	memcpy(texts, stock->manifest, stock->manifest_size);
	if (stock->signature_size)
		memcpy(texts + stock->manifest_size, stock->signature, stock->signature_size);
	return flow_write(s, RECORD_IMAGE, head, sizeof(head), texts, size, err);
}

int send_chunk(struct flow *s, uint32_t i, const void *data, uint32_t size, struct error *err)
{
	uint8_t head[4];
	struct wire_writer w = wire_writer(head, sizeof(head));

	wire_put_u32(&w, i);
	return flow_write(s, RECORD_CHUNK, head, sizeof(head), data, size, err);
}
