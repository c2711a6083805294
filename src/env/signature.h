/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_SIGNATURE_H
#define WISP_ENV_SIGNATURE_H

/* Ed25519 signatures by keys in PEM files, and the folder of keys that a site trusts. Any thread.
 */

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>

struct error;

#define SIGNATURE_KEY_TEXT 45 /* base64 of a public key, and NUL */
#define SIGNATURE_TEXT 89     /* the same of a signature */

struct signature {
	unsigned char key[32], signature[64];
};

/* Loads a private key; -EINVAL: it is none of Ed25519. Free with EVP_PKEY_free(). */
int signature_load_key(const char *path, EVP_PKEY **ret, struct error *err);

/* The text of its public key, and of the signature of some bytes. 0 or -EIO. */
int signature_key(EVP_PKEY *key, char ret[SIGNATURE_KEY_TEXT], struct error *err);
int signature_make(EVP_PKEY *key, const void *data, size_t size, char ret[SIGNATURE_TEXT],
		   struct error *err);

/* Reads both texts; false: they are not the one form that they have. */
bool signature_parse(const char *key, const char *text, struct signature *ret);

/* Whether its key signed these bytes. */
bool signature_is_good(const struct signature *signature, const void *data, size_t size);

/*
 * Whether its key is one of a folder (*.pub, PEM): 0 and, unless who is NULL, the file's name
 * without
 * ".pub" (new); -EACCES when not. where begins the error.
 */
int signature_is_trusted(const struct signature *signature, const char *folder, const char *where,
			 char **who, struct error *err);

#endif
