/* SPDX-License-Identifier: Apache-2.0 */
/* Output kept in a file. */

#include "job/output.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"

#define HOLE (4u << 20) /* made at once */

int output_create(struct output *o, const char *path, struct error *err)
{
	*o = (struct output){.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	return o->fd < 0 ? error_errno(err, -errno, "cannot make %s", path) : 0;
}

void output_done(struct output *o)
{
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
}

int output_append(struct output *o, const void *data, size_t n)
{
	const char *at = data;

	while (n) {
		ssize_t done = pwrite(o->fd, at, n, (off_t)o->end);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		at += done;
		n -= (size_t)done;
		o->end += (uint64_t)done;
	}
	/* A file system without holes keeps all. */
	if (o->end - o->start >= OUTPUT_KEEP + HOLE) {
		o->start = o->end - OUTPUT_KEEP;
		fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)o->start);
	}
	return 0;
}

ssize_t output_read(const struct output *o, uint64_t *position, void *buf, size_t n)
{
	ssize_t got;

	if (*position < o->start)
		*position = o->start;
	if (*position >= o->end)
		return 0;
	if (n > o->end - *position)
		n = (size_t)(o->end - *position);
	got = pread(o->fd, buf, n, (off_t)*position);
	if (got > 0)
		*position += (uint64_t)got;
	return got < 0 ? -errno : got;
}

int output_set(struct output *o, uint64_t position)
{
	if (position < o->end && ftruncate(o->fd, (off_t)position) < 0)
		return -errno;
	if (position > o->end || position < o->start)
		o->start = position;
	o->end = position;
	return 0;
}
