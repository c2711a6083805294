/* SPDX-License-Identifier: Apache-2.0 */
/* Images that come in chunks. */

#include "image/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image.h"
#include "image/manifest.h"
#include "image/progress.h"
#include "image/reuse.h"
#include "image/store.h"
#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define NAP_MS 100

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int interrupted(const struct arrival *a, struct error *err)
{
	return a->progress ? progress_check(a->progress, err) : 0;
}

/* -EAGAIN: another has the lock, or took the folder away with it. */
static int try_lock(struct arrival *a, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" ARRIVAL_LOCK, a->folder);
	CLEANUP_CLOSE int fd = -1;
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat ours, named;

	if (!path)
		return no_memory(err);
	if (mkdir(a->folder, 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make %s", a->folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : error_errno(err, -errno, "cannot open %s", path);
	if (fcntl(fd, F_OFD_SETLK, &whole) < 0)
		return errno == EAGAIN || errno == EACCES
			       ? -EAGAIN
			       : error_errno(err, -errno, "cannot lock %s", path);
	if (fstat(fd, &ours) < 0 || stat(path, &named) < 0 || ours.st_ino != named.st_ino)
		return -EAGAIN;
	if (getrandom(a->token, sizeof(a->token), 0) != sizeof(a->token) ||
	    pwrite(fd, a->token, sizeof(a->token), 0) != sizeof(a->token))
		return error_errno(err, -errno, "cannot write %s", path);
	a->lock = take_fd(&fd);
	return 0;
}

/* Nothing has come yet. Who made the folder says nothing: another may have locked it first. */
static bool is_fresh(const struct arrival *a)
{
	CLEANUP_FREE char *manifest = io_format("%s/manifest.json", a->folder);

	return manifest && access(manifest, F_OK) < 0 && errno == ENOENT;
}

int arrival_begin(const char *store, const char *digest, struct progress *progress,
		  struct arrival *ret, struct error *err)
{
	struct arrival a = {
		.progress = progress, .lock = -1, .have = -1, .parts = {-1, -1, -1, -1}};
	int rc;

	memcpy(a.digest, digest, DIGEST_TEXT);
	a.store = strdup(store);
	a.folder = io_format("%s/" ARRIVAL_PREFIX "%s", store, digest);
	rc = a.store && a.folder ? 0 : no_memory(err);
	if (rc == 0)
		reuse_sweep(store, a.folder);
	while (rc == 0 && (rc = try_lock(&a, err)) == -EAGAIN) {
		if (progress)
			progress_now(progress, "another process brings it: waiting");
		rc = interrupted(&a, err);
		poll(NULL, 0, NAP_MS);
	}
	a.fresh = rc == 0 && is_fresh(&a);
	if (rc < 0)
		arrival_end(&a);
	else
		*ret = a;
	return rc;
}

static int check_manifest(struct arrival *a, json_t *json, struct error *err)
{
	char digest[DIGEST_TEXT];
	int rc;

	if (!json_is_object(json))
		return error_set(err, -EBADMSG, "its manifest is no JSON object");
	rc = image_digest(json, digest, err);
	if (rc == 0 && strcmp(digest, a->digest))
		rc = error_set(err, -EBADMSG,
			       "its manifest has the digest sha256:%s, not sha256:%s", digest,
			       a->digest);
	if (rc == 0 && json_integer_value(json_object_get(json, "format")) != MANIFEST_FORMAT)
		rc = error_set(err, -EPROTONOSUPPORT, "it was made by another version of wisp");
	return rc < 0 ? rc : chunks_from_manifest(json, &a->chunks, err);
}

static int write_beside(const struct arrival *a, const char *name, const void *data, size_t size,
			struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", a->folder, name);

	if (!path)
		return no_memory(err);
	if (size)
		return io_write_file(path, data, size, err);
	return unlink(path) < 0 && errno != ENOENT
		       ? error_errno(err, -errno, "cannot remove %s", path)
		       : 0;
}

/* All its blocks, where the file system can promise them. *old: bytes that were there. */
static int open_part(struct arrival *a, unsigned p, bool *old, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", a->folder, image_parts[p]);
	off_t size = (off_t)a->chunks.parts[p].size;
	struct stat st;
	int fd;

	if (!path)
		return no_memory(err);
	fd = a->parts[p] = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	*old = st.st_size > 0;
	if (ftruncate(fd, size) < 0)
		return error_errno(err, -errno, "cannot make %s", path);
	if (size && fallocate(fd, 0, 0, size) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
		return error_errno(err, -errno, "the image needs %llu MiB in %s",
				   (unsigned long long)(a->chunks.bytes >> 20), a->store);
	return 0;
}

static int set_there(struct arrival *a, uint32_t i)
{
	chunk_set_bit(a->bits, i);
	a->missing--;
	if (a->have >= 0 && pwrite(a->have, &a->bits[i / 8], 1, i / 8) != 1)
		return -errno;
	return 0;
}

/* Which chunks of a part are good. */
static int look_at_part(struct arrival *a, unsigned p, void *buf, struct error *err)
{
	const struct chunk_part *part = &a->chunks.parts[p];
	int rc = 0;

	for (uint32_t i = part->first; rc == 0 && i < part->first + part->n; i++) {
		struct chunk_at at = chunks_at(&a->chunks, i);

		rc = interrupted(a, err);
		if (rc == 0 && !io_pread_full(a->parts[p], buf, at.size, (off_t)at.offset) &&
		    chunks_is(&a->chunks, i, buf, at.size))
			rc = set_there(a, i);
	}
	return rc;
}

static uint32_t there_of(const struct arrival *a, unsigned p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->chunks.parts[p].n; i++)
		n += chunk_bit(a->bits, a->chunks.parts[p].first + i);
	return n;
}

static int take_parts(struct arrival *a, struct error *err)
{
	CLEANUP_FREE void *buf = malloc(CHUNK_SIZE);
	int rc = buf ? 0 : no_memory(err);

	for (unsigned p = 0; rc == 0 && p < CHUNK_PARTS; p++) {
		bool old = false;

		rc = open_part(a, p, &old, err);
		if (rc == 0 && old)
			rc = look_at_part(a, p, buf, err);
	}
	for (unsigned p = 0; rc == 0 && p < CHUNK_PARTS; p++)
		if (!there_of(a, p) && reuse_part(&a->chunks, p, a->parts[p]))
			rc = look_at_part(a, p, buf, err);
	return rc;
}

/* From now on others may be served of it. */
static int show_have(struct arrival *a, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" ARRIVAL_HAVE, a->folder);
	size_t size = chunk_bits_size(a->chunks.n);

	if (!path)
		return no_memory(err);
	unlink(path);
	a->have = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (a->have < 0 || pwrite(a->have, a->bits, size, 0) != (ssize_t)size)
		return error_errno(err, -errno, "cannot write %s", path);
	return 0;
}

/* A copy of some bytes; NULL when there is no memory. */
static char *copy_of(const void *data, size_t size)
{
	char *copy = malloc(size + 1);

	if (copy && size)
		memcpy(copy, data, size);
	return copy;
}

int arrival_take(struct arrival *a, const void *manifest, size_t size, const void *signature,
		 size_t signature_size, struct error *err)
{
	json_t *json = json_loadb(manifest, size, JSON_REJECT_DUPLICATES, NULL);
	int rc = check_manifest(a, json, err);

	json_decref(json);
	if (rc == 0 && signature_size &&
	    !image_signature_holds(signature, signature_size, manifest, size))
		rc = error_set(err, -EBADMSG, "its signature does not belong to it");
	if (rc < 0)
		return rc;
	a->manifest = copy_of(manifest, size);
	a->signature = copy_of(signature, signature_size);
	a->manifest_size = size;
	a->signature_size = signature_size;
	return a->manifest && a->signature ? 0 : no_memory(err);
}

int arrival_fill(struct arrival *a, struct error *err)
{
	int rc = write_beside(a, "manifest.json", a->manifest, a->manifest_size, err);

	if (rc == 0)
		rc = write_beside(a, "manifest.sig", a->signature, a->signature_size, err);
	if (rc < 0)
		return rc;
	a->bits = calloc(1, chunk_bits_size(a->chunks.n) + 1);
	if (!a->bits)
		return no_memory(err);
	a->missing = a->chunks.n;
	rc = take_parts(a, err);
	return rc < 0 ? rc : show_have(a, err);
}

int arrival_put(struct arrival *a, uint64_t i, const void *data, size_t size, struct error *err)
{
	struct chunk_at at;
	ssize_t n;

	if (i >= a->chunks.n)
		return error_set(err, -EBADMSG, "it has no chunk %llu", (unsigned long long)i);
	if (chunk_bit(a->bits, (uint32_t)i))
		return 0;
	at = chunks_at(&a->chunks, (uint32_t)i);
	if (!chunks_is(&a->chunks, (uint32_t)i, data, size))
		return error_set(err, -EBADMSG, "chunk %llu of %s is damaged",
				 (unsigned long long)(i - a->chunks.parts[at.part].first),
				 image_parts[at.part]);
	for (const uint8_t *p = data; size; p += n, size -= (size_t)n, at.offset += (uint64_t)n) {
		n = pwrite(a->parts[at.part], p, size, (off_t)at.offset);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return error_errno(err, -errno, "cannot write %s in %s",
					   image_parts[at.part], a->folder);
	}
	if (set_there(a, (uint32_t)i) < 0)
		return error_errno(err, -errno, "cannot write %s/" ARRIVAL_HAVE, a->folder);
	return 0;
}

static int check_place(const struct arrival *a, const char *name, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", a->store, name);

	if (!path)
		return no_memory(err);
	return access(path, F_OK) < 0
		       ? 0
		       : error_set(err, -EEXIST, "image %s is there meanwhile", name);
}

static void remove_own_files(const struct arrival *a, const char *name)
{
	CLEANUP_FREE char *have = io_format("%s/%s/" ARRIVAL_HAVE, a->store, name);
	CLEANUP_FREE char *lock = io_format("%s/%s/" ARRIVAL_LOCK, a->store, name);

	if (have)
		unlink(have);
	if (lock)
		unlink(lock);
}

int arrival_commit(struct arrival *a, const char *name, bool replace, struct error *err)
{
	CLEANUP_CLOSE int store = -1;
	int rc;

	if (!a->bits || a->missing)
		return error_set(err, -ENODATA, "%u of its %u chunks are missing", a->missing,
				 a->chunks.n);
	store = tree_lock(a->store, err);
	if (store < 0)
		return store;
	rc = replace ? 0 : check_place(a, name, err);
	if (rc == 0)
		rc = tree_commit(a->store, name, a->folder, err);
	/* Who waited for the lock sees that it has gone elsewhere. */
	if (rc == 0)
		remove_own_files(a, name);
	a->committed |= rc == 0;
	return rc;
}

void arrival_drop(struct arrival *a)
{
	a->dropped = true;
}

void arrival_end(struct arrival *a)
{
	bool empty = a->fresh && (!a->bits || a->missing == a->chunks.n);

	if (a->lock >= 0 && !a->committed && (empty || a->dropped))
		tree_remove(a->folder, NULL);
	for (unsigned p = 0; p < CHUNK_PARTS; p++)
		cleanup_close_fd(&a->parts[p]);
	cleanup_close_fd(&a->have);
	cleanup_close_fd(&a->lock);
	chunks_done(&a->chunks);
	free(a->manifest);
	free(a->signature);
	free(a->bits);
	free(a->store);
	free(a->folder);
	*a = (struct arrival){.lock = -1, .have = -1, .parts = {-1, -1, -1, -1}};
}
