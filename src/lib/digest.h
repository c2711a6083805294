/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_DIGEST_H
#define WISP_LIB_DIGEST_H

/* SHA-256, written as 64 hexadecimal digits. Any thread. */

#include <stddef.h>
#include <stdint.h>

struct error;

#define DIGEST_TEXT 65

int digest_bytes(const void *data, size_t size, char ret[DIGEST_TEXT], struct error *err);

/* Of pieces one after the other. digest_end() fills ret and frees the digest, also on failure. */
struct digest;
int digest_begin(struct digest **ret, struct error *err);
int digest_add(struct digest *digest, const void *data, size_t size, struct error *err);
int digest_end(struct digest *digest, char ret[DIGEST_TEXT], struct error *err);
/* Frees it without a result; accepts NULL. */
void digest_drop(struct digest *digest);

/* Of a file's content; its size in *size when not NULL. */
int digest_file(const char *path, char ret[DIGEST_TEXT], uint64_t *size, struct error *err);

#endif
