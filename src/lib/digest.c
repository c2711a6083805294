/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by libcrypto. */

#include "lib/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define CHUNK (1u << 18)

static int finish(EVP_MD_CTX *md, char ret[DIGEST_TEXT], struct error *err)
{
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned n;

	if (!EVP_DigestFinal_ex(md, sum, &n) || 2 * n + 1 != DIGEST_TEXT)
		return error_set(err, -EIO, "SHA-256 failed");
	for (unsigned i = 0; i < n; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
	return 0;
}

/* A digest is libcrypto's context under our name. */
static EVP_MD_CTX *context(struct digest *digest)
{
	return (EVP_MD_CTX *)digest;
}

int digest_begin(struct digest **ret, struct error *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
		EVP_MD_CTX_free(md);
		return error_set(err, -ENOMEM, "SHA-256: out of memory");
	}
	*ret = (struct digest *)md;
	return 0;
}

int digest_add(struct digest *digest, const void *data, size_t size, struct error *err)
{
	return EVP_DigestUpdate(context(digest), data, size)
		       ? 0
		       : error_set(err, -EIO, "SHA-256 failed");
}

int digest_end(struct digest *digest, char ret[DIGEST_TEXT], struct error *err)
{
	int rc = finish(context(digest), ret, err);

	digest_drop(digest);
	return rc;
}

void digest_drop(struct digest *digest)
{
	EVP_MD_CTX_free(context(digest));
}

int digest_bytes(const void *data, size_t size, char ret[DIGEST_TEXT], struct error *err)
{
	struct digest *digest;
	int rc = digest_begin(&digest, err);

	if (rc < 0)
		return rc;
	rc = digest_add(digest, data, size, err);
	if (rc == 0)
		return digest_end(digest, ret, err);
	digest_drop(digest);
	return rc;
}

/* Adds all that can be read. */
static int add_file(struct digest *digest, int fd, const char *path, uint64_t *size,
		    struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(CHUNK);
	ssize_t n;
	int rc = 0;

	*size = 0;
	if (!buf)
		return error_set(err, -ENOMEM, "SHA-256: out of memory");
	while (rc == 0 && (n = read(fd, buf, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read %s", path);
		rc = digest_add(digest, buf, (size_t)n, err);
		*size += (uint64_t)n;
	}
	return rc;
}

int digest_file(const char *path, char ret[DIGEST_TEXT], uint64_t *size, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct digest *digest;
	uint64_t n = 0;
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	rc = digest_begin(&digest, err);
	if (rc < 0)
		return rc;
	rc = add_file(digest, fd, path, &n, err);
	if (rc == 0) {
		rc = digest_end(digest, ret, err);
	} else {
		digest_drop(digest);
	}
	if (rc == 0 && size)
		*size = n;
	return rc;
}
