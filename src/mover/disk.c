/* SPDX-License-Identifier: Apache-2.0 */
/* The content of a disk: looks at it, sums it, writes it. */

#include "mover/disk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/page.h"

#define BLOCK DISK_BLOCK
#define PIECE (16 * BLOCK)   /* read at once */
#define FLUSH (1024 * BLOCK) /* written out at once */

uint64_t disk_next_data(const struct disk_walk *w, uint64_t at)
{
	off_t data = lseek(w->fd, (off_t)at, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? w->size : at;
	return (uint64_t)data / BLOCK * BLOCK;
}

int disk_read(int fd, uint64_t offset, uint8_t *data, size_t n, struct error *err)
{
	int rc = io_pread_full(fd, data, n, (off_t)offset);

	if (rc == -EPIPE)
		return error_set(err, -EIO, "a disk was cut: it has no byte %llu",
				 (unsigned long long)(offset + n - 1));
	return rc < 0 ? error_errno(err, rc, "cannot read byte %llu of a disk",
				    (unsigned long long)offset)
		      : 0;
}

static int walk_piece(const struct disk_walk *w, uint64_t at, const uint8_t *data, size_t n,
		      struct error *err)
{
	int rc = 0;

	for (size_t done = 0; rc == 0 && done < n; done += BLOCK) {
		size_t left = n - done < BLOCK ? n - done : BLOCK;

		if (!page_is_zero(data + done, left))
			rc = w->block(w->arg, at + done, data + done, left, err);
	}
	return rc;
}

int disk_walk(const struct disk_walk *w, struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(PIECE);
	uint64_t at = 0;
	int rc = buf ? 0 : error_set(err, -ENOMEM, "out of memory");

	while (rc == 0 && (at = disk_next_data(w, at)) < w->size) {
		size_t n = w->size - at < PIECE ? (size_t)(w->size - at) : PIECE;

		rc = work_beat(w->progress, err);
		if (rc == 0)
			rc = disk_read(w->fd, at, buf, n, err);
		if (rc == 0)
			rc = walk_piece(w, at, buf, n, err);
		at += n;
	}
	return rc;
}

struct sum {
	struct digest *digest;
	uint64_t bytes;
};

static int sum_block(void *arg, uint64_t offset, const uint8_t *data, size_t n, struct error *err)
{
	struct sum *sum = arg;
	uint64_t number = htole64(offset / BLOCK);
	int rc = digest_add(sum->digest, &number, sizeof(number), err);

	sum->bytes += n;
	return rc < 0 ? rc : digest_add(sum->digest, data, n, err);
}

int disk_sum(int fd, uint64_t size, const struct progress *progress, char ret[DIGEST_TEXT],
	     uint64_t *bytes, struct error *err)
{
	struct sum sum = {0};
	struct disk_walk w = {fd, size, progress, sum_block, &sum};
	int rc = digest_begin(&sum.digest, err);

	if (rc < 0)
		return rc;
	rc = disk_walk(&w, err);
	if (rc < 0) {
		digest_drop(sum.digest);
		return rc;
	}
	*bytes = sum.bytes;
	return digest_end(sum.digest, ret, err);
}

int disk_open_again(int fd, bool write)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
}

/* fdatasync() alone could not be cancelled, nor would it end while others write on. */
int disk_flush(int fd, uint64_t size, const _Atomic bool *cancel, struct error *err)
{
	const unsigned now =
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
	int failed = 0;

	for (uint64_t at = 0; !failed && at < size; at += FLUSH) {
		if (cancel && *cancel)
			return error_set(err, -ECANCELED, "cancelled");
		if (sync_file_range(fd, (off_t)at, FLUSH, now) < 0)
			failed = errno;
	}
	/* Where there is no such call all of it is left to this one. */
	if (!failed || failed == ENOSYS || failed == EINVAL || failed == ESPIPE)
		failed = fdatasync(fd) < 0 ? errno : 0;
	return failed ? error_errno(err, -failed, "cannot sync it") : 0;
}

int disk_write(int fd, uint64_t offset, const uint8_t *data, size_t n, struct error *err)
{
	while (n) {
		ssize_t done = pwrite(fd, data, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return error_errno(err, done ? -errno : -EIO,
					   "cannot write byte %llu of a disk",
					   (unsigned long long)offset);
		data += done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}
