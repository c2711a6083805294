/* SPDX-License-Identifier: Apache-2.0 */
/* An image out of a stream of one direction. */

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/deliver.h"
#include "image/flow.h"
#include "image/send.h"
#include "lib/error.h"

static int too_short(struct error *err)
{
	return error_set(err, -EPIPE, "the stream ends too soon");
}

/* The chunks, up to the end. */
static int take_chunks(struct flow *s, struct delivery *d, struct error *err)
{
	struct flow_record record;
	int rc;

	while ((rc = flow_read(s, &record, err)) > 0) {
		if (record.type == RECORD_END)
			return 0;
		if (record.type == RECORD_ERROR)
			return flow_take_error(&record, err);
		if (record.type != RECORD_CHUNK)
			return error_set(err, -EPROTO, "a record of type %u among the chunks",
					 record.type);
		rc = deliver_put(d, &record, err);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : too_short(err);
}

static int take_all(struct flow *s, struct delivery *d, const struct flow_record *head,
		    struct error *err)
{
	int rc = deliver_take(d, head->data + 32, head->size - 32, err);

	if (rc == 0 && !d->result.was_there)
		rc = take_chunks(s, d, err);
	if (rc == 0 && !d->result.was_there)
		rc = deliver_commit(d, err);
	return rc;
}

static int import(struct flow *s, const struct image_wish *wish, struct image_arrived *ret,
		  struct error *err)
{
	char digest[DIGEST_TEXT];
	struct flow_record record;
	struct delivery d;
	int rc = flow_read_greeting(s, err);

	if (rc < 0)
		return rc;
	rc = flow_read(s, &record, err);
	if (rc == 0)
		return too_short(err);
	if (rc < 0)
		return rc;
	if (record.type != RECORD_IMAGE || record.size < 32)
		return error_set(err, -EPROTO, "it begins with no image");
	digest_from_bytes(record.data, digest);
	rc = deliver_begin(wish, false, digest, &d, err);
	if (rc < 0)
		return rc;
	if (!d.result.was_there)
		rc = take_all(s, &d, &record, err);
	if (rc == 0)
		*ret = d.result;
	deliver_end(&d);
	return rc;
}

/* Who writes to a pipe may do so to the end. */
static void drain(int in)
{
	char buf[1 << 16];
	struct stat st;

	if (fstat(in, &st) < 0 || S_ISREG(st.st_mode))
		return;
	while (read(in, buf, sizeof(buf)) > 0)
		;
}

int image_import(int in, const struct image_wish *wish, struct image_arrived *ret,
		 struct error *err)
{
	struct flow s = {.in = in, .out = -1, .progress = wish->progress, .silence_ms = -1};
	int rc = import(&s, wish, ret, err);

	if (rc == 0 && ret->was_there)
		drain(in);
	flow_done(&s);
	return rc;
}
