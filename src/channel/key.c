/* SPDX-License-Identifier: Apache-2.0 */
/* Keys made of keys, by OpenSSL's HMAC. */

#include "channel/key.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "lib/error.h"

#define INFO_MAX 512

int key_hmac(const void *key, size_t nkey, const void *data, size_t n, uint8_t ret[KEY_SIZE],
	     struct error *err)
{
	size_t size = 0;

	if (EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, nkey, data, n, ret, KEY_SIZE,
		      &size) &&
	    size == KEY_SIZE)
		return 0;
	return error_set(err, -ENOMEM, "HMAC-SHA256 failed");
}

int key_extract(const void *salt, size_t nsalt, const void *secret, size_t n, uint8_t ret[KEY_SIZE],
		struct error *err)
{
	return key_hmac(salt, nsalt, secret, n, ret, err);
}

/* One block of SHA-256 is a key already. */
int key_expand(const uint8_t key[KEY_SIZE], const void *info, size_t n, uint8_t ret[KEY_SIZE],
	       struct error *err)
{
	uint8_t block[INFO_MAX + 1];

	if (n > INFO_MAX)
		return error_set(err, -EINVAL, "what a key is for has %zu bytes", n);
	memcpy(block, info, n);
	block[n] = 1;
	return key_hmac(key, KEY_SIZE, block, n + 1, ret, err);
}
