/* SPDX-License-Identifier: Apache-2.0 */
/* Images to be given to others. */

#include "image/stock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/arrival.h"
#include "image/image.h"
#include "image/manifest.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

void stock_close(struct stock *s)
{
	free(s->manifest);
	free(s->signature);
	chunks_done(&s->chunks);
	for (unsigned p = 0; p < CHUNK_PARTS; p++)
		cleanup_close_fd(&s->parts[p]);
	cleanup_close_fd(&s->have);
	cleanup_close_fd(&s->lock);
	*s = (struct stock){0};
}

static int open_file(const char *folder, const char *name, int flags, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", folder, name);
	int fd = path ? open(path, flags | O_CLOEXEC | O_NOFOLLOW) : -1;

	return fd < 0 ? error_errno(err, path ? -errno : -ENOMEM, "cannot open %s/%s", folder, name)
		      : fd;
}

static int open_parts(const char *folder, struct stock *s, struct error *err)
{
	for (unsigned p = 0; p < CHUNK_PARTS; p++) {
		s->parts[p] = open_file(folder, image_parts[p], O_RDONLY, err);
		if (s->parts[p] < 0)
			return s->parts[p];
	}
	return 0;
}

static int read_signature(const char *folder, struct stock *s, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/manifest.sig", folder);
	ssize_t n = path ? io_read_file(path, SIGNATURE_MAX, &s->signature, err) : -ENOMEM;

	if (n > 0)
		s->signature_size = (size_t)n;
	return n < 0 && n != -ENOENT ? (int)n : 0;
}

static int read_manifest(const char *folder, struct stock *s, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/manifest.json", folder);
	ssize_t n = path ? io_read_file(path, MANIFEST_MAX / 2, &s->manifest, err) : -ENOMEM;
	json_t *json;
	int rc;

	if (n < 0)
		return (int)n;
	s->manifest_size = (size_t)n;
	json = json_loadb(s->manifest, s->manifest_size, JSON_REJECT_DUPLICATES, NULL);
	if (!json)
		return error_set(err, -EBADMSG, "%s is no JSON", path);
	rc = image_digest(json, s->digest, err);
	if (rc == 0)
		rc = chunks_from_manifest(json, &s->chunks, err);
	json_decref(json);
	return rc;
}

static int fill(const char *folder, struct stock *s, struct error *err)
{
	int rc = read_manifest(folder, s, err);

	if (rc == 0)
		rc = read_signature(folder, s, err);
	return rc < 0 ? rc : open_parts(folder, s, err);
}

static struct stock empty(void)
{
	return (struct stock){.parts = {-1, -1, -1, -1}, .have = -1, .lock = -1};
}

int stock_open(const struct image *image, struct stock *ret, struct error *err)
{
	struct stock s = empty();
	int rc = fill(image->folder, &s, err);

	if (rc < 0) {
		stock_close(&s);
		return error_prefix(err, rc, "image %s", image->name);
	}
	*ret = s;
	return 0;
}

int stock_open_arriving(const char *store, const char *digest, struct stock *ret, struct error *err)
{
	CLEANUP_FREE char *folder = io_format("%s/" ARRIVAL_PREFIX "%s", store, digest);
	struct stock s = empty();
	int rc = 0;

	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	/* First what is made last; what is missing means that it has only begun, or is whole now.
	 */
	s.have = open_file(folder, ARRIVAL_HAVE, O_RDONLY, err);
	if (s.have < 0)
		return s.have;
	s.lock = open_file(folder, ARRIVAL_LOCK, O_RDWR, err);
	rc = s.lock < 0 ? s.lock : fill(folder, &s, err);
	if (rc < 0)
		stock_close(&s);
	else
		*ret = s;
	return rc;
}

bool stock_has(const struct stock *s, uint32_t i)
{
	uint8_t byte = 0;

	return s->have < 0 || (pread(s->have, &byte, 1, i / 8) == 1 && byte >> i % 8 & 1);
}

bool stock_grows(const struct stock *s)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return s->lock >= 0 && fcntl(s->lock, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

bool stock_is_brought_by(const struct stock *s, const uint8_t *token)
{
	uint8_t own[ARRIVAL_TOKEN];

	return s->lock >= 0 && pread(s->lock, own, sizeof(own), 0) == sizeof(own) &&
	       !memcmp(own, token, sizeof(own));
}

int stock_read(const struct stock *s, uint32_t i, void *buf, uint32_t *ret, struct error *err)
{
	struct chunk_at at = chunks_at(&s->chunks, i);
	int rc = io_pread_full(s->parts[at.part], buf, at.size, (off_t)at.offset);

	if (rc < 0)
		return error_errno(err, rc, "cannot read %s", image_parts[at.part]);
	*ret = at.size;
	return 0;
}
