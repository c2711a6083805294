/* SPDX-License-Identifier: Apache-2.0 */
/* An image from who serves it: what lacks is asked for. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/deliver.h"
#include "image/flow.h"
#include "image/send.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/wire.h"

#define SILENCE_MS 30000

/* Whatever a source does wrong, another may do right; an interrupt is the user's. */
static int of_source(int rc)
{
	return rc < 0 && rc != -EINTR && rc != -ENOMEM ? -EREMOTEIO : rc;
}

static int read_record(struct flow *s, struct flow_record *ret, struct error *err)
{
	int rc = flow_read(s, ret, err);

	if (rc == 0)
		rc = error_set(err, -EPIPE, "the source ends too soon");
	if (rc > 0 && ret->type == RECORD_ERROR)
		rc = flow_take_error(ret, err);
	return of_source(rc);
}

static int want(struct flow *s, const struct arrival *a, struct flow_record *ret, struct error *err)
{
	uint8_t bytes[32];
	int rc = of_source(flow_greet(s, err));

	digest_to_bytes(a->digest, bytes);
	if (rc == 0)
		rc = of_source(flow_write(s, RECORD_WANT, bytes, sizeof(bytes), a->token,
					  sizeof(a->token), err));
	if (rc == 0)
		rc = of_source(flow_read_greeting(s, err));
	do {
		if (rc >= 0)
			rc = read_record(s, ret, err);
	} while (rc > 0 && ret->type == RECORD_WAIT);
	if (rc < 0)
		return rc;
	if (ret->type != RECORD_IMAGE || ret->size < 32 || memcmp(ret->data, bytes, 32))
		return error_set(err, -EREMOTEIO, "the source sends another image");
	return 0;
}

static int ask(struct flow *s, const struct arrival *a, struct error *err)
{
	size_t size = chunk_bits_size(a->chunks.n);
	CLEANUP_FREE uint8_t *lack = calloc(1, size + 1);
	uint8_t head[4];
	struct wire_writer w = wire_writer(head, sizeof(head));

	if (!lack)
		return error_set(err, -ENOMEM, "out of memory");
	wire_put_u32(&w, a->chunks.n);
	for (uint32_t i = 0; i < a->chunks.n; i++)
		if (!chunk_bit(a->bits, i))
			chunk_set_bit(lack, i);
	return of_source(flow_write(s, RECORD_LACK, head, sizeof(head), lack, size, err));
}

/* What it sends for it; what is wrong with a chunk is the source's, what is with writing it ours.
 */
static int take(struct flow *s, struct delivery *d, struct error *err)
{
	struct flow_record record;
	int rc;

	while ((rc = read_record(s, &record, err)) > 0) {
		if (record.type == RECORD_END)
			return d->arrival.missing
				       ? error_set(err, -EREMOTEIO, "the source left chunks out")
				       : 0;
		if (record.type == RECORD_WAIT)
			continue;
		if (record.type != RECORD_CHUNK)
			return error_set(err, -EREMOTEIO, "a record of type %u among the chunks",
					 record.type);
		rc = deliver_put(d, &record, err);
		if (rc < 0)
			return rc == -EBADMSG || rc == -EPROTO ? -EREMOTEIO : rc;
	}
	return rc;
}

static int fetch(struct flow *s, struct delivery *d, struct error *err)
{
	struct flow_record record;
	int rc = want(s, &d->arrival, &record, err);

	if (rc < 0)
		return rc;
	rc = deliver_take(d, record.data + 32, record.size - 32, err);
	if (rc == -EBADMSG || rc == -EPROTO || rc == -EPROTONOSUPPORT)
		return -EREMOTEIO;
	if (rc == 0 && !d->result.was_there && d->arrival.missing) {
		rc = ask(s, &d->arrival, err);
		if (rc == 0)
			rc = take(s, d, err);
	}
	if (rc == 0 && !d->result.was_there)
		rc = deliver_commit(d, err);
	return rc;
}

int image_fetch(int in, int out, const char *digest, const struct image_wish *wish,
		struct image_arrived *ret, struct error *err)
{
	struct flow s = {
		.in = in, .out = out, .progress = wish->progress, .silence_ms = SILENCE_MS};
	struct delivery d;
	int rc;

	if (strlen(digest) != DIGEST_TEXT - 1 || digest[strspn(digest, "0123456789abcdef")])
		return error_set(err, -EINVAL, "\"%s\" is no digest", digest);
	rc = deliver_begin(wish, true, digest, &d, err);
	if (rc < 0)
		return rc;
	if (!d.result.was_there)
		rc = fetch(&s, &d, err);
	if (rc == 0)
		*ret = d.result;
	deliver_end(&d);
	flow_done(&s);
	return rc;
}
