/* SPDX-License-Identifier: Apache-2.0 */
/* Page files, written by one thread each. */

#include "mover/pagefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/index.h"

/* Past the page cache large pieces are best; into it, pieces that stay in a core's cache. */
#define DIRECT_PIECE (8u << 20)
#define CACHED_PIECE (1u << 19)
#define WRITE_BACK (32u << 20) /* so much is left to the kernel before it shall begin to write */

int pagefile_begin(struct pagefile *f, int dir, unsigned number, bool direct, struct error *err)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;

	*f = (struct pagefile){.fd = -1, .direct = direct};
	snprintf(f->name, sizeof(f->name), "pages.%u", number);
	if (direct)
		f->fd = openat(dir, f->name, flags | O_DIRECT, 0600);
	if (f->fd < 0) {
		/* A file system without O_DIRECT may have made the file all the same. */
		if (direct)
			unlinkat(dir, f->name, 0);
		f->direct = false;
		f->fd = openat(dir, f->name, flags, 0600);
	}
	if (f->fd < 0)
		return error_errno(err, -errno, "cannot make %s", f->name);
	/* Room for one more chunk and its alignment beyond the piece that is written. */
	f->room = (f->direct ? DIRECT_PIECE : CACHED_PIECE) + CHUNK_BYTES + PAGE_BYTES;
	if (posix_memalign((void **)&f->buf, PAGE_BYTES, f->room))
		return error_set(err, -ENOMEM, "no memory for %zu bytes", f->room);
	return 0;
}

static int write_piece(struct pagefile *f, size_t size, struct error *err)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = pwrite(f->fd, f->buf + at, size - at, (off_t)(f->written + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && f->direct) {
			/* Opened, but not for these alignments: the page cache takes anything. */
			f->direct = false;
			if (!fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_DIRECT))
				continue;
		}
		if (n <= 0)
			return error_errno(err, n ? -errno : -EIO,
					   "cannot write %zu bytes to %s: make room, or use "
					   "another folder",
					   size - at, f->name);
		at += (size_t)n;
	}
	f->written += size;
	if (!f->direct && f->written - f->synced >= WRITE_BACK) {
		sync_file_range(f->fd, (off_t)f->synced, (off_t)(f->written - f->synced),
				SYNC_FILE_RANGE_WRITE);
		f->synced = f->written;
	}
	return 0;
}

int pagefile_reserve(struct pagefile *f, size_t size, size_t align, uint8_t **ret,
		     struct error *err)
{
	size_t gap;

	if (f->used + size + align > f->room) {
		size_t whole = f->used - f->used % PAGE_BYTES;
		int rc = write_piece(f, whole, err);

		if (rc < 0)
			return rc;
		memmove(f->buf, f->buf + whole, f->used - whole);
		f->used -= whole;
	}
	gap = -f->used & (align - 1);
	memset(f->buf + f->used, 0, gap);
	f->used += gap;
	*ret = f->buf + f->used;
	return 0;
}

uint64_t pagefile_add(struct pagefile *f, size_t size)
{
	uint64_t place = f->written + f->used;

	f->used += size;
	return place;
}

int pagefile_finish(struct pagefile *f, struct error *err)
{
	size_t gap = -f->used & (PAGE_BYTES - 1);
	int rc;

	memset(f->buf + f->used, 0, gap);
	rc = write_piece(f, f->used + gap, err);
	f->used = 0;
	if (rc == 0 && fsync(f->fd) < 0)
		rc = error_errno(err, -errno, "cannot sync %s", f->name);
	return rc;
}

void pagefile_done(struct pagefile *f)
{
	cleanup_close_fd(&f->fd);
	free(f->buf);
	*f = (struct pagefile){.fd = -1};
}
