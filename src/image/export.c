/* SPDX-License-Identifier: Apache-2.0 */
/* An image as a stream of one direction. */

#include <errno.h>
#include <stdlib.h>

#include "image/image.h"
#include "image/manifest.h"
#include "image/progress.h"
#include "image/send.h"
#include "image/transfer.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static void tell(struct progress *progress, uint64_t done, uint64_t total)
{
	CLEANUP_FREE char *text =
		progress ? io_format("%llu of %llu MiB", (unsigned long long)(done >> 20),
				     (unsigned long long)(total >> 20))
			 : NULL;

	if (text)
		progress_now(progress, text);
}

static int send_chunks(const struct image *image, const struct stock *stock, struct flow *s,
		       struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(CHUNK_SIZE);
	uint64_t done = 0;
	int rc = buf ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (uint32_t i = 0; rc == 0 && i < stock->chunks.n; i++) {
		struct chunk_at at = chunks_at(&stock->chunks, i);
		uint32_t size;

		rc = stock_read(stock, i, buf, &size, err);
		if (rc == 0 && !chunks_is(&stock->chunks, i, buf, size))
			rc = error_set(err, -EBADMSG, "image %s: %s is damaged: build it again",
				       image->name, image_parts[at.part]);
		if (rc == 0)
			rc = send_chunk(s, i, buf, size, err);
		done += at.size;
		tell(s->progress, done, stock->chunks.bytes);
	}
	return rc;
}

int image_export(const struct image *image, int out, struct progress *progress, struct error *err)
{
	struct flow s = {.in = -1, .out = out, .progress = progress, .silence_ms = -1};
	struct stock stock;
	int rc = stock_open(image, &stock, err);

	if (rc < 0)
		return rc;
	rc = flow_greet(&s, err);
	if (rc == 0)
		rc = send_image(&s, &stock, err);
	if (rc == 0)
		rc = send_chunks(image, &stock, &s, err);
	if (rc == 0)
		rc = flow_write(&s, RECORD_END, NULL, 0, NULL, 0, err);
	stock_close(&stock);
	flow_done(&s);
	return rc;
}
