/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_IOV_H
#define WISP_VMM_IOV_H

/* Arithmetic on arrays of iovecs. Any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

static inline size_t iov_bytes(const struct iovec *iov, unsigned n)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/*
 * Writes the part [skip, skip + len) of src (less where src ends) to dst, which has room for as
 * many entries as src. Returns the number of entries; empty ones are left out.
 */
static inline unsigned iov_slice(const struct iovec *src, unsigned n, size_t skip, size_t len,
				 struct iovec *dst)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t part = src[i].iov_len;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part -= skip;
		if (part > len)
			part = len;
		dst[count++] = (struct iovec){(char *)src[i].iov_base + skip, part};
		len -= part;
		skip = 0;
	}
	return count;
}

/* Drops the first n bytes in place; *iov and *count move. */
static inline void iov_advance(struct iovec **iov, unsigned *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

/* Copies between buf and the bytes of the array from offset on; returns how many there were. */
static inline size_t iov_copy(const struct iovec *iov, unsigned n, size_t offset, void *buf,
			      size_t len, bool to_iov)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part = iov[i].iov_len;
		char *p = (char *)iov[i].iov_base + offset;

		if (offset >= part) {
			offset -= part;
			continue;
		}
		part -= offset;
		if (part > len - done)
			part = len - done;
		memcpy(to_iov ? p : (char *)buf + done, to_iov ? (char *)buf + done : p, part);
		done += part;
		offset = 0;
	}
	return done;
}

static inline size_t iov_write(const struct iovec *iov, unsigned n, size_t offset, const void *buf,
			       size_t len)
{
	return iov_copy(iov, n, offset, (void *)buf, len, true);
}

static inline size_t iov_read(const struct iovec *iov, unsigned n, size_t offset, void *buf,
			      size_t len)
{
	return iov_copy(iov, n, offset, buf, len, false);
}

#endif
