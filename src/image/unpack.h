/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_UNPACK_H
#define WISP_IMAGE_UNPACK_H

/* Compressed bytes and Debian packages, by libarchive. Any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/*
 * Decompresses gzip, bzip2, xz, lzma, lz4 or zstd into at most max bytes; what names the data in
 * errors. Returns 0 and a new buffer the caller frees, -EFBIG when there is more, -EBADMSG when the
 * data is bad or in no format we know.
 */
int unpack_bytes(const void *data, size_t size, size_t max, const char *what, uint8_t **ret,
		 size_t *ret_size, struct error *err);

/*
 * Unpacks the regular files of a .deb for whose path (without "./" before it) want() says
 * yes into the folder to. Paths that lead out of it are refused.
 */
int unpack_deb(const char *deb, const char *to, bool (*want)(const char *path), struct error *err);

#endif
