/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 signatures by libcrypto. */

#include "env/signature.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

/* The exact bytes, so that one value has one text. */
static bool decode(const char *text, unsigned char *bytes, size_t size)
{
	unsigned char all[sizeof(((struct signature *)NULL)->signature) + 4];
	char again[SIGNATURE_TEXT];
	size_t n = strlen(text);

	if (n != (size + 2) / 3 * 4 ||
	    EVP_DecodeBlock(all, (const unsigned char *)text, (int)n) < 0)
		return false;
	EVP_EncodeBlock((unsigned char *)again, all, (int)size);
	memcpy(bytes, all, size);
	return !strcmp(again, text);
}

static void encode(const unsigned char *bytes, size_t size, char *ret)
{
	EVP_EncodeBlock((unsigned char *)ret, bytes, (int)size);
}

int signature_load_key(const char *path, EVP_PKEY **ret, struct error *err)
{
	CLEANUP_FILE FILE *file = fopen(path, "re");

	if (!file)
		return error_errno(err, -errno, "cannot open key %s", path);
	*ret = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	if (*ret && EVP_PKEY_get_base_id(*ret) == EVP_PKEY_ED25519)
		return 0;
	EVP_PKEY_free(*ret);
	*ret = NULL;
	return error_set(
		err, -EINVAL,
		"%s is no Ed25519 private key (make one: openssl genpkey -algorithm ed25519)",
		path);
}

int signature_key(EVP_PKEY *key, char ret[SIGNATURE_KEY_TEXT], struct error *err)
{
	struct signature s;
	size_t n = sizeof(s.key);

	if (EVP_PKEY_get_raw_public_key(key, s.key, &n) != 1)
		return error_set(err, -EIO, "cannot tell the public key");
	encode(s.key, sizeof(s.key), ret);
	return 0;
}

int signature_make(EVP_PKEY *key, const void *data, size_t size, char ret[SIGNATURE_TEXT],
		   struct error *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	struct signature s;
	size_t n = sizeof(s.signature);
	bool good = md && EVP_DigestSignInit(md, NULL, NULL, NULL, key) == 1 &&
		    EVP_DigestSign(md, s.signature, &n, data, size) == 1;

	EVP_MD_CTX_free(md);
	if (!good)
		return error_set(err, -EIO, "cannot sign");
	encode(s.signature, sizeof(s.signature), ret);
	return 0;
}

bool signature_parse(const char *key, const char *text, struct signature *ret)
{
	return decode(key, ret->key, sizeof(ret->key)) &&
	       decode(text, ret->signature, sizeof(ret->signature));
}

bool signature_is_good(const struct signature *s, const void *data, size_t size)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, s->key, sizeof(s->key));
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool good = key && md && EVP_DigestVerifyInit(md, NULL, NULL, NULL, key) == 1 &&
		    EVP_DigestVerify(md, s->signature, sizeof(s->signature), data, size) == 1;

	EVP_MD_CTX_free(md);
	EVP_PKEY_free(key);
	return good;
}

static bool file_is_key(const char *path, const struct signature *s)
{
	CLEANUP_FILE FILE *file = fopen(path, "re");
	EVP_PKEY *pkey = file ? PEM_read_PUBKEY(file, NULL, NULL, NULL) : NULL;
	unsigned char raw[sizeof(s->key)];
	size_t n = sizeof(raw);
	bool same = pkey && EVP_PKEY_get_base_id(pkey) == EVP_PKEY_ED25519 &&
		    EVP_PKEY_get_raw_public_key(pkey, raw, &n) == 1 &&
		    !memcmp(raw, s->key, sizeof(raw));

	EVP_PKEY_free(pkey);
	return same;
}

int signature_is_trusted(const struct signature *s, const char *folder, const char *where,
			 char **who, struct error *err)
{
	CLEANUP_DIR DIR *dir = opendir(folder);
	struct dirent *entry;

	if (!dir)
		return error_errno(err, -errno, "%s: cannot read the folder of keys %s", where,
				   folder);
	while ((entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');
		CLEANUP_FREE char *path = io_format("%s/%s", folder, entry->d_name);

		if (!path || !dot || strcmp(dot, ".pub") || !file_is_key(path, s))
			continue;
		if (who)
			*who = strndup(entry->d_name, (size_t)(dot - entry->d_name));
		return !who || *who ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	return error_set(err, -EACCES, "%s is signed by a key that is not in %s", where, folder);
}
