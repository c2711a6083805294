/* SPDX-License-Identifier: Apache-2.0 */
/* Gives a disk the content of another: what is the same is left alone. */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/disk.h"
#include "mover/page.h"

#define BLOCK DISK_BLOCK
#define SECTOR 512
#define PIECE (16 * BLOCK) /* looked at at once */

bool disk_clone(int from, int to)
{
	return !ioctl(to, FICLONE, from);
}

/* Two disks, piece by piece. */
struct pair {
	struct disk_walk from, to;
	uint8_t *left, *right; /* PIECE bytes of each */
	uint64_t written;
};

/* Zeros take no room where that can be had. */
static int put_block(struct pair *p, uint64_t at, const uint8_t *data, size_t n, struct error *err)
{
	p->written += n;
	if (page_is_zero(data, n) &&
	    !fallocate(p->to.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n))
		return 0;
	return disk_write(p->to.fd, at, data, n, err);
}

static int update_piece(struct pair *p, uint64_t at, size_t n, struct error *err)
{
	int rc = disk_read(p->from.fd, at, p->left, n, err);

	if (rc == 0)
		rc = disk_read(p->to.fd, at, p->right, n, err);
	for (size_t done = 0; rc == 0 && done < n; done += BLOCK) {
		size_t left = n - done < BLOCK ? n - done : BLOCK;

		if (memcmp(p->left + done, p->right + done, left))
			rc = put_block(p, at + done, p->left + done, left, err);
	}
	return rc;
}

/* Where both have holes nothing is looked at. */
static int update(struct pair *p, struct error *err)
{
	uint64_t size = p->from.size, at = 0, other;
	int rc = 0;

	while (rc == 0) {
		other = disk_next_data(&p->to, at);
		at = disk_next_data(&p->from, at);
		at = other < at ? other : at;
		if (at >= size)
			return 0;
		rc = work_beat(p->from.progress, err);
		if (rc == 0)
			rc = update_piece(p, at, size - at < PIECE ? (size_t)(size - at) : PIECE,
					  err);
		at += PIECE;
	}
	return rc;
}

/* A file has to reach that far before it can be compared. */
static int set_size(int fd, uint64_t size, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot examine a disk");
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size != size && ftruncate(fd, (off_t)size) < 0)
		return error_errno(err, -errno, "cannot make a disk of %llu bytes",
				   (unsigned long long)size);
	return 0;
}

int disk_copy(int from, int to, uint64_t size, const struct progress *progress, uint64_t *written,
	      struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(2 * PIECE);
	struct pair p = {.from = {.fd = from, .size = size, .progress = progress},
			 .to = {.fd = to, .size = size},
			 .left = buf,
			 .right = buf + PIECE,
			 .written = size};
	int rc = buf ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0 && !disk_clone(from, to)) {
		p.written = 0;
		rc = set_size(to, size, err);
		if (rc == 0)
			rc = update(&p, err);
	}
	if (rc == 0 && written)
		*written = p.written;
	return rc;
}

struct part {
	int whole;
	uint8_t *buf; /* a block of it */
	uint64_t *place;
};

/* Who is killed leaves pages, a host that loses its power sectors. */
static int check_part(void *arg, uint64_t offset, const uint8_t *data, size_t n, struct error *err)
{
	struct part *part = arg;
	int rc = disk_read(part->whole, offset, part->buf, n, err);

	for (size_t at = 0; rc == 0 && at < n; at += SECTOR) {
		if (memcmp(data + at, part->buf + at, SECTOR) && !page_is_zero(data + at, SECTOR)) {
			*part->place = offset + at;
			rc = 1;
		}
	}
	return rc;
}

int disk_is_part(int fd, int whole, uint64_t size, const struct progress *progress, uint64_t *place,
		 struct error *err)
{
	CLEANUP_FREE uint8_t *buf = malloc(BLOCK);
	struct part part = {whole, buf, place};
	struct disk_walk w = {fd, size, progress, check_part, &part};
	int rc = buf ? disk_walk(&w, err) : error_set(err, -ENOMEM, "out of memory");

	return rc < 0 ? rc : !rc;
}
