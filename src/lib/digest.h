/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_DIGEST_H
#define WISP_LIB_DIGEST_H

/* SHA-256, written as 64 hexadecimal digits. Any thread. */

#include <stddef.h>
#include <stdint.h>

struct error;

#define DIGEST_TEXT 65

int digest_bytes(const void *data, size_t size, char ret[DIGEST_TEXT], struct error *err);

/* Of a file's content; its size in *size when not NULL. */
int digest_file(const char *path, char ret[DIGEST_TEXT], uint64_t *size, struct error *err);

#endif
