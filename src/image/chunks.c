/* SPDX-License-Identifier: Apache-2.0 */
/* The chunks of an image. */

#include "image/chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "image/manifest.h"
#include "lib/cleanup.h"
#include "lib/digest.h"
#include "lib/error.h"
#include "lib/io.h"

static bool is_digest(const char *text)
{
	return text && strlen(text) == DIGEST_TEXT - 1 && !text[strspn(text, "0123456789abcdef")];
}

/* A part's place in the numbers; its digests are taken later. */
static int measure(const json_t *entry, const char *name, struct chunks *c, struct chunk_part *part,
		   struct error *err)
{
	const json_t *size = json_object_get(entry, "size");
	const json_t *list = json_object_get(entry, "chunks");
	uint64_t n;

	if (!json_is_integer(size) || json_integer_value(size) < 0 ||
	    !is_digest(json_string_value(json_object_get(entry, "sha256"))))
		return error_set(err, -EBADMSG, "the manifest has no size and digest of %s", name);
	if (!list)
		return error_set(err, -ENODATA,
				 "it was built by a version of wisp that made no chunks: build it "
				 "again");
	part->size = (uint64_t)json_integer_value(size);
	n = (part->size + CHUNK_SIZE - 1) / CHUNK_SIZE;
	if (!json_is_array(list) || json_array_size(list) != n || n > CHUNKS_MAX - c->n)
		return error_set(err, -EBADMSG, "the manifest's chunks of %s do not fit its size",
				 name);
	part->first = c->n;
	part->n = (uint32_t)n;
	c->n += part->n;
	c->bytes += part->size;
	return 0;
}

static int take_digests(struct chunks *c, const json_t *parts, struct error *err)
{
	const char **next = c->digests;

	for (unsigned p = 0; p < CHUNK_PARTS; p++) {
		const json_t *list =
			json_object_get(json_object_get(parts, image_parts[p]), "chunks");

		for (uint32_t i = 0; i < c->parts[p].n; i++, next++) {
			*next = json_string_value(json_array_get(list, i));
			if (!is_digest(*next))
				return error_set(err, -EBADMSG,
						 "the manifest's digest of chunk %u of %s is none",
						 i, image_parts[p]);
		}
	}
	return 0;
}

int chunks_from_manifest(json_t *manifest, struct chunks *ret, struct error *err)
{
	const json_t *parts = json_object_get(manifest, "parts");
	struct chunks c = {.manifest = json_incref(manifest)};
	int rc = 0;

	for (unsigned p = 0; rc == 0 && p < CHUNK_PARTS; p++)
		rc = measure(json_object_get(parts, image_parts[p]), image_parts[p], &c,
			     &c.parts[p], err);
	if (rc == 0) {
		c.digests = calloc(c.n + 1, sizeof(*c.digests));
		rc = c.digests ? take_digests(&c, parts, err)
			       : error_set(err, -ENOMEM, "out of memory");
	}
	if (rc < 0)
		chunks_done(&c);
	else
		*ret = c;
	return rc;
}

void chunks_done(struct chunks *c)
{
	free(c->digests);
	json_decref(c->manifest);
	*c = (struct chunks){0};
}

struct chunk_at chunks_at(const struct chunks *c, uint32_t i)
{
	unsigned p = 0;
	uint64_t offset, left;

	while (i - c->parts[p].first >= c->parts[p].n)
		p++;
	offset = (uint64_t)(i - c->parts[p].first) * CHUNK_SIZE;
	left = c->parts[p].size - offset;
	return (struct chunk_at){p, offset, left < CHUNK_SIZE ? (uint32_t)left : CHUNK_SIZE};
}

bool chunks_is(const struct chunks *c, uint32_t i, const void *data, size_t size)
{
	char digest[DIGEST_TEXT];

	return size == chunks_at(c, i).size && digest_bytes(data, size, digest, NULL) == 0 &&
	       !strcmp(digest, c->digests[i]);
}

static int add_chunk(int fd, const char *path, void *buf, size_t size, uint64_t offset,
		     json_t *list, struct error *err)
{
	char digest[DIGEST_TEXT];
	int rc = io_pread_full(fd, buf, size, (off_t)offset);

	if (rc < 0)
		return error_errno(err, rc, "cannot read %s", path);
	rc = digest_bytes(buf, size, digest, err);
	if (rc == 0 && json_array_append_new(list, json_string(digest)) < 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	return rc;
}

int chunks_of_file(const char *path, json_t **ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE void *buf = malloc(CHUNK_SIZE);
	json_t *list = json_array();
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	int rc = size < 0 ? error_errno(err, -errno, "cannot read %s", path) : 0;

	if (rc == 0 && (!buf || !list))
		rc = error_set(err, -ENOMEM, "out of memory");
	for (off_t at = 0; rc == 0 && at < size; at += CHUNK_SIZE)
		rc = add_chunk(fd, path, buf,
			       size - at < CHUNK_SIZE ? (size_t)(size - at) : CHUNK_SIZE,
			       (uint64_t)at, list, err);
	if (rc < 0)
		json_decref(list);
	else
		*ret = list;
	return rc;
}
