/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_KEY_H
#define WISP_CHANNEL_KEY_H

/* Keys and proofs made of keys: HMAC-SHA256 (RFC 2104) and HKDF (RFC 5869). Any thread. */

#include <stddef.h>
#include <stdint.h>

struct error;

#define KEY_SIZE 32 /* bytes of SHA-256 */

/* Returns 0 or -errno. */
int key_hmac(const void *key, size_t nkey, const void *data, size_t n, uint8_t ret[KEY_SIZE],
	     struct error *err);

/* HKDF-Extract: one key of a secret of any size and a salt. Returns 0 or -errno. */
int key_extract(const void *salt, size_t nsalt, const void *secret, size_t n, uint8_t ret[KEY_SIZE],
		struct error *err);

/* HKDF-Expand: the key for what info says (at most 512 bytes). Returns 0 or -errno. */
int key_expand(const uint8_t key[KEY_SIZE], const void *info, size_t n, uint8_t ret[KEY_SIZE],
	       struct error *err);

#endif
