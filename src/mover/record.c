/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of records. */

#include "mover/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/wire.h"

#define ALIGNMENT 8
#define SUMMED (RECORD_HEADER_SIZE - 4) /* bytes of the header that its own sum is of */

static uint64_t padding(uint64_t length)
{
	return -length & (ALIGNMENT - 1);
}

int record_append(struct record_writer *w, uint32_t type, uint32_t flags, const void *body,
		  uint64_t length)
{
	static const uint8_t zeros[ALIGNMENT];
	uint8_t header[RECORD_HEADER_SIZE];
	struct wire_writer out = wire_writer(header, sizeof(header));
	int rc;

	wire_put_u32(&out, type);
	wire_put_u32(&out, flags);
	wire_put_u64(&out, length);
	wire_put_u32(&out, crc32c(0, body, length));
	wire_put_u32(&out, w->next++);
	wire_put_u32(&out, 0);
	wire_put_u32(&out, crc32c(0, header, SUMMED));
	rc = io_write_full(w->fd, header, sizeof(header));
	if (rc == 0)
		rc = io_write_full(w->fd, body, length);
	if (rc == 0)
		rc = io_write_full(w->fd, zeros, padding(length));
	return rc;
}

static int read_some(struct record_reader *r, void *buf, uint64_t n, struct error *err)
{
	int rc;

	if (n > r->left)
		return error_set(err, -EBADMSG, "%s is cut off in record %" PRIu32, r->name,
				 r->next);
	rc = io_read_full(r->fd, buf, n);
	if (rc == -EPIPE)
		return error_set(err, -EBADMSG, "%s is cut off in record %" PRIu32, r->name,
				 r->next);
	if (rc < 0)
		return error_errno(err, rc, "cannot read %s", r->name);
	r->left -= n;
	return 0;
}

static int read_header(struct record_reader *r, uint32_t *flags, uint32_t *sum, struct error *err)
{
	uint8_t header[RECORD_HEADER_SIZE];
	struct wire_reader in = wire_reader(header, sizeof(header));
	uint32_t number, reserved;
	int rc = read_some(r, header, sizeof(header), err);

	if (rc < 0)
		return rc;
	r->type = wire_get_u32(&in);
	*flags = wire_get_u32(&in);
	r->length = wire_get_u64(&in);
	*sum = wire_get_u32(&in);
	number = wire_get_u32(&in);
	reserved = wire_get_u32(&in);
	if (wire_get_u32(&in) != crc32c(0, header, SUMMED))
		return error_set(err, -EBADMSG, "%s: the header of record %" PRIu32 " is damaged",
				 r->name, r->next);
	if (number != r->next)
		return error_set(err, -EBADMSG,
				 "%s: record %" PRIu32 " where %" PRIu32 " should be", r->name,
				 number, r->next);
	if (reserved || *flags & ~RECORD_OPTIONAL)
		return error_set(err, -EBADMSG,
				 "%s: record %" PRIu32 " is of a later version of Wisp", r->name,
				 number);
	return 0;
}

static int read_body(struct record_reader *r, uint32_t sum, struct error *err)
{
	uint8_t zeros[ALIGNMENT] = {0}, wanted[ALIGNMENT] = {0};
	int rc;

	if (r->length > r->left)
		return error_set(err, -EBADMSG, "%s is cut off in record %" PRIu32, r->name,
				 r->next);
	if (!r->body || r->length > r->room) {
		uint8_t *bigger = realloc(r->body, r->length + 1);

		if (!bigger)
			return error_set(err, -ENOMEM, "%s: no memory for %" PRIu64 " bytes",
					 r->name, r->length);
		r->body = bigger;
		r->room = r->length;
	}
	rc = r->length ? read_some(r, r->body, r->length, err) : 0;
	if (rc == 0)
		rc = read_some(r, zeros, padding(r->length), err);
	if (rc < 0)
		return rc;
	if (crc32c(0, r->body, r->length) != sum || memcmp(zeros, wanted, sizeof(zeros)))
		return error_set(err, -EBADMSG, "%s: record %" PRIu32 " is damaged", r->name,
				 r->next);
	return 0;
}

int record_next(struct record_reader *r, struct error *err)
{
	for (;; r->next++) {
		uint32_t flags, sum;
		int rc = read_header(r, &flags, &sum, err);

		if (rc == 0)
			rc = read_body(r, sum, err);
		if (rc < 0)
			return rc;
		if (r->type >= RECORD_HEAD && r->type <= RECORD_MANIFEST)
			break;
		if (!(flags & RECORD_OPTIONAL))
			return error_set(err, -EBADMSG,
					 "%s: record %" PRIu32 " has type %" PRIu32
					 ", which this version of Wisp does not know",
					 r->name, r->next, r->type);
	}
	r->next++;
	return 0;
}

void record_reader_done(struct record_reader *r)
{
	free(r->body);
	r->body = NULL;
	r->room = 0;
}
