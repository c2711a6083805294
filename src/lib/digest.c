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

int digest_bytes(const void *data, size_t size, char ret[DIGEST_TEXT], struct error *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int rc = -ENOMEM;

	if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) && EVP_DigestUpdate(md, data, size))
		rc = finish(md, ret, err);
	else
		error_set(err, rc, "SHA-256: out of memory");
	EVP_MD_CTX_free(md);
	return rc;
}

static int digest_fd(EVP_MD_CTX *md, int fd, const char *path, uint64_t *size, struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(CHUNK);
	ssize_t n;

	*size = 0;
	if (!buf || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		return error_set(err, -ENOMEM, "SHA-256: out of memory");
	while ((n = read(fd, buf, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read %s", path);
		if (!EVP_DigestUpdate(md, buf, (size_t)n))
			return error_set(err, -EIO, "SHA-256 failed");
		*size += (uint64_t)n;
	}
	return 0;
}

int digest_file(const char *path, char ret[DIGEST_TEXT], uint64_t *size, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	EVP_MD_CTX *md;
	uint64_t n = 0;
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	md = EVP_MD_CTX_new();
	rc = md ? digest_fd(md, fd, path, &n, err)
		: error_set(err, -ENOMEM, "SHA-256: out of memory");
	if (rc == 0)
		rc = finish(md, ret, err);
	EVP_MD_CTX_free(md);
	if (rc == 0 && size)
		*size = n;
	return rc;
}
