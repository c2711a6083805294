/* SPDX-License-Identifier: Apache-2.0 */
/* Opened epochs. */

#include "mover/epoch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/io.h"

/* Opens a file of the epoch and compares its size. */
static int open_file(const struct epoch *epoch, const char *name, uint64_t size, struct error *err)
{
	CLEANUP_CLOSE int fd = openat(epoch->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s/%s", epoch->name, name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return error_set(err, -EBADMSG,
				 "%s/%s has %lld bytes, not the %" PRIu64 " of its manifest",
				 epoch->name, name, (long long)st.st_size, size);
	return take_fd(&fd);
}

static int open_index(struct epoch *epoch, struct error *err)
{
	const struct manifest *m = &epoch->manifest;
	CLEANUP_FREE char *name = io_format("%s/index", epoch->name);
	CLEANUP_CLOSE int fd = open_file(epoch, "index", m->index_size, err);
	char digest[DIGEST_TEXT], path[64];
	int rc = fd;

	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = digest_file(path, digest, NULL, err);
	if (rc == 0 && strcmp(digest, m->index_sha256))
		rc = error_set(err, -EBADMSG, "%s/index is damaged (its SHA-256 is %s)",
			       epoch->name, digest);
	if (rc == 0)
		rc = index_read(fd, name ? name : "index", m->index_size, &epoch->index, err);
	if (rc < 0)
		return rc;
	if (epoch->index.epoch != m->epoch || epoch->index.parent_epoch != m->parent_epoch ||
	    epoch->index.memory != m->memory || epoch->index.state_size != m->state ||
	    epoch->index.files != m->files || strcmp(epoch->index.parent, m->parent))
		return error_set(err, -EBADMSG, "%s: its manifest and its index do not match",
				 epoch->name);
	return index_check(&epoch->index, m->file_size, epoch->name, err);
}

static int open_pages(struct epoch *epoch, struct error *err)
{
	uint32_t n = epoch->manifest.files;

	epoch->file = malloc((n + 1) * sizeof(*epoch->file));
	if (!epoch->file)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++)
		epoch->file[i] = -1;
	for (uint32_t i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "pages.%u", i);
		epoch->file[i] = open_file(epoch, name, epoch->manifest.file_size[i], err);
		if (epoch->file[i] < 0)
			return epoch->file[i];
	}
	return 0;
}

static int read_manifest(const struct store *store, int dir, uint64_t number, struct manifest *ret,
			 struct error *err)
{
	CLEANUP_FREE char *name = io_format("%s/%" PRIu64 "/" MANIFEST_NAME, store->path, number);
	int rc = name ? manifest_read(dir, name, ret, err)
		      : error_set(err, -ENOMEM, "out of memory");

	if (rc < 0 || ret->epoch == number)
		return rc;
	rc = error_set(err, -EBADMSG, "%s is the manifest of epoch %" PRIu64, name, ret->epoch);
	manifest_done(ret);
	return rc;
}

int epoch_manifest(const struct store *store, uint64_t number, struct manifest *ret,
		   struct error *err)
{
	CLEANUP_CLOSE int dir = store_epoch(store, number, err);

	return dir < 0 ? dir : read_manifest(store, dir, number, ret, err);
}

int epoch_open(const struct store *store, uint64_t number, struct epoch *ret, struct error *err)
{
	struct epoch epoch = {.dir = store_epoch(store, number, err)};
	int rc = epoch.dir < 0 ? epoch.dir : 0;

	if (rc == 0) {
		epoch.name = io_format("%s/%" PRIu64, store->path, number);
		if (!epoch.name)
			rc = error_set(err, -ENOMEM, "out of memory");
	}
	if (rc == 0)
		rc = read_manifest(store, epoch.dir, number, &epoch.manifest, err);
	if (rc == 0)
		rc = open_pages(&epoch, err);
	if (rc == 0)
		rc = open_index(&epoch, err);
	if (rc < 0)
		epoch_close(&epoch);
	else
		*ret = epoch;
	return rc;
}

void epoch_close(struct epoch *epoch)
{
	for (uint32_t i = 0; epoch->file && i < epoch->manifest.files; i++)
		cleanup_close_fd(&epoch->file[i]);
	free(epoch->file);
	index_done(&epoch->index);
	manifest_done(&epoch->manifest);
	cleanup_close_fd(&epoch->dir);
	free(epoch->name);
	*epoch = (struct epoch){.dir = -1};
}

int epoch_reader_init(struct epoch_reader *reader, struct error *err)
{
	*reader = (struct epoch_reader){0};
	if (compressor_create(COMPRESSION_NONE, &reader->compressor) < 0 ||
	    posix_memalign((void **)&reader->packed, PAGE_BYTES, CHUNK_BYTES) ||
	    posix_memalign((void **)&reader->raw, PAGE_BYTES, CHUNK_BYTES)) {
		epoch_reader_done(reader);
		return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

void epoch_reader_done(struct epoch_reader *reader)
{
	compressor_destroy(reader->compressor);
	free(reader->packed);
	free(reader->raw);
	*reader = (struct epoch_reader){0};
}

static int damaged(const struct epoch *epoch, const struct row *row, struct error *err)
{
	return error_set(err, -EBADMSG,
			 "%s/pages.%u is damaged at byte %" PRIu64 " (chunk %" PRIu64
			 " of memory): restore another epoch",
			 epoch->name, row->file, row->offset, row->chunk);
}

static int read_failed(const struct epoch *epoch, const struct row *row, int rc, struct error *err)
{
	return error_errno(err, rc, "cannot read %s/pages.%u at byte %" PRIu64, epoch->name,
			   row->file, row->offset);
}

/* The data as they are stored, with their sum checked. */
static int read_stored(const struct epoch *epoch, const struct row *row, uint8_t *buf,
		       struct error *err)
{
	int rc = io_pread_full(epoch->file[row->file], buf, row->length, (off_t)row->offset);

	if (rc < 0)
		return read_failed(epoch, row, rc, err);
	return crc32c(0, buf, row->length) == row->sum ? 0 : damaged(epoch, row, err);
}

/* The data, decompressed to out. */
static int read_raw(const struct epoch *epoch, const struct row *row, struct epoch_reader *reader,
		    uint8_t *out, struct error *err)
{
	int rc;

	if (row->compression == COMPRESSION_NONE)
		return read_stored(epoch, row, out, err);
	rc = read_stored(epoch, row, reader->packed, err);
	if (rc == 0 &&
	    compressor_unpack(reader->compressor, (enum compression)row->compression,
			      reader->packed, row->length, out, row_pages(row) * PAGE_BYTES) < 0)
		rc = damaged(epoch, row, err);
	return rc;
}

int epoch_read(const struct epoch *epoch, const struct row *row, struct epoch_reader *reader,
	       const uint8_t **ret, struct error *err)
{
	*ret = reader->raw;
	return read_raw(epoch, row, reader, reader->raw, err);
}

/* Reads into the pieces and sums them up. */
static int read_vector(const struct epoch *epoch, const struct row *row, struct iovec *iov,
		       unsigned n, struct error *err)
{
	struct iovec left[CHUNK_PAGES];
	uint64_t at = row->offset;
	uint32_t sum = 0;
	unsigned i = 0;

	memcpy(left, iov, n * sizeof(*iov));
	while (i < n) {
		ssize_t got = preadv(epoch->file[row->file], left + i, (int)(n - i), (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return read_failed(epoch, row, got ? -errno : -EPIPE, err);
		at += (uint64_t)got;
		for (; i < n && (size_t)got >= left[i].iov_len; i++)
			got -= (ssize_t)left[i].iov_len;
		if (i < n) {
			left[i].iov_base = (uint8_t *)left[i].iov_base + got;
			left[i].iov_len -= (size_t)got;
		}
	}
	for (i = 0; i < n; i++)
		sum = crc32c(sum, iov[i].iov_base, iov[i].iov_len);
	return sum == row->sum ? 0 : damaged(epoch, row, err);
}

/* One piece for each run of pages; those that nobody wants go to the reader's memory. */
static unsigned pieces(const struct row *row, uint64_t wanted, uint8_t *chunk, uint8_t *waste,
		       struct iovec iov[CHUNK_PAGES])
{
	unsigned n = 0;

	for (uint64_t left = row->stored; left; left &= left - 1) {
		unsigned page = (unsigned)__builtin_ctzll(left);
		uint8_t *base = (wanted >> page & 1 ? chunk : waste) + (size_t)page * PAGE_BYTES;

		if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == base)
			iov[n - 1].iov_len += PAGE_BYTES;
		else
			iov[n++] = (struct iovec){base, PAGE_BYTES};
	}
	return n;
}

int epoch_scatter(const struct epoch *epoch, const struct row *row, uint64_t wanted,
		  struct epoch_reader *reader, uint8_t *chunk, struct error *err)
{
	struct iovec iov[CHUNK_PAGES];
	const uint8_t *from;
	int rc;

	if (row->compression == COMPRESSION_NONE)
		return read_vector(epoch, row, iov, pieces(row, wanted, chunk, reader->raw, iov),
				   err);
	if (row->stored == wanted && !(row->stored & (row->stored + 1)))
		return read_raw(epoch, row, reader, chunk, err);
	rc = epoch_read(epoch, row, reader, &from, err);
	for (uint64_t left = row->stored; rc == 0 && left; left &= left - 1, from += PAGE_BYTES) {
		unsigned page = (unsigned)__builtin_ctzll(left);

		if (wanted >> page & 1)
			memcpy(chunk + (size_t)page * PAGE_BYTES, from, PAGE_BYTES);
	}
	return rc;
}
