/* SPDX-License-Identifier: Apache-2.0 */
/* Gives an image to who fetches it, also one that is arriving still. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/arrival.h"
#include "image/image.h"
#include "image/send.h"
#include "image/transfer.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/wire.h"

#define SILENCE_MS 60000
#define NAP_MS 5
#define SAY_NS 1000000000ULL   /* how often who waits is told that it goes on */
#define GRACE_NS 5000000000ULL /* for another who brings the rest */

struct server {
	struct flow s;
	struct stock stock;
	uint64_t said;		      /* when something was sent last */
	uint64_t alive;		      /* when somebody brought the rest last */
	uint8_t token[ARRIVAL_TOKEN]; /* of who fetches */
	uint8_t *buf;
};

/* 0 when there is such an image, or one is arriving; -ENOENT. */
static int find(const char *digest, struct stock *ret, struct error *err)
{
	CLEANUP_FREE char *reference = io_format("@sha256:%s", digest), *store = NULL;
	int rc = reference ? paths_image(NULL, &store, err) : -ENOMEM;
	struct image image;

	/* It may be given its name between two looks. */
	for (unsigned i = 0; rc == 0 && i < 2; i++) {
		rc = image_open(reference, &image, err);
		if (rc == 0) {
			rc = stock_open(&image, ret, err);
			image_close(&image);
			return rc;
		}
		if (stock_open_arriving(store, digest, ret, NULL) == 0)
			return 0;
	}
	return rc < 0 ? rc : -ENOENT;
}

/* Says that we live; ends when the other side has. */
static int say_wait(struct server *v, struct error *err)
{
	if (flow_has_input(&v->s, NAP_MS))
		return error_set(err, -EPIPE, "who fetches has ended");
	if (io_now_ns() - v->said < SAY_NS)
		return 0;
	v->said = io_now_ns();
	return flow_write(&v->s, RECORD_WAIT, NULL, 0, NULL, 0, err);
}

static int wait_for_image(struct server *v, const char *digest, unsigned patience_ms,
			  struct error *err)
{
	uint64_t end = io_now_ns() + patience_ms * 1000000ull;
	int rc;

	v->said = io_now_ns();
	while ((rc = find(digest, &v->stock, err)) == -ENOENT && io_now_ns() < end) {
		rc = say_wait(v, err);
		if (rc < 0)
			return rc;
	}
	return rc;
}

static int send_one(struct server *v, uint32_t i, struct error *err)
{
	uint32_t size;
	int rc = stock_read(&v->stock, i, v->buf, &size, err);

	if (rc == 0)
		rc = send_chunk(&v->s, i, v->buf, size, err);
	v->said = io_now_ns();
	return rc;
}

/* The next chunk behind *at that is lacking and there; false: none is there now. */
static bool next_there(const struct server *v, const uint8_t *lack, uint32_t *at)
{
	for (uint32_t k = 0; k < v->stock.chunks.n; k++) {
		uint32_t i = (*at + k) % v->stock.chunks.n;

		if (!chunk_bit(lack, i) || !stock_has(&v->stock, i))
			continue;
		*at = i;
		return true;
	}
	return false;
}

/* Until something new is there. */
static int wait_for_chunk(struct server *v, struct error *err)
{
	if (stock_grows(&v->stock))
		v->alive = io_now_ns();
	else if (io_now_ns() - v->alive > GRACE_NS)
		return error_set(err, -EAGAIN,
				 "it came here only in part, and nobody brings the rest");
	return say_wait(v, err);
}

/* lack: bits of as many chunks as the stock has; becomes empty. */
static int send_lacking(struct server *v, uint8_t *lack, struct error *err)
{
	uint32_t left = 0, at = 0;
	int rc = 0;

	for (uint32_t i = 0; i < v->stock.chunks.n; i++)
		left += chunk_bit(lack, i);
	v->alive = v->said = io_now_ns();
	while (rc == 0 && left) {
		if (!next_there(v, lack, &at)) {
			rc = stock_is_brought_by(&v->stock, v->token)
				     ? error_set(err, -EDEADLK, "the rest comes by this very fetch")
				     : wait_for_chunk(v, err);
			continue;
		}
		rc = send_one(v, at, err);
		lack[at / 8] &= (uint8_t) ~(1u << at % 8);
		left--;
	}
	return rc < 0 ? rc : flow_write(&v->s, RECORD_END, NULL, 0, NULL, 0, err);
}

static int answer(struct server *v, const struct flow_record *record, struct error *err)
{
	struct wire_reader r = wire_reader(record->data, record->size);
	uint32_t n = wire_get_u32(&r);
	size_t size = chunk_bits_size(v->stock.chunks.n);
	CLEANUP_FREE uint8_t *lack = NULL;

	if (record->type != RECORD_LACK || !wire_ok(&r) || n != v->stock.chunks.n ||
	    r.size - r.pos != size)
		return error_set(err, -EPROTO, "who fetches does not say which of %u chunks",
				 v->stock.chunks.n);
	lack = malloc(size + 1);
	if (!lack)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(lack, r.data + r.pos, size);
	return send_lacking(v, lack, err);
}

static int read_want(struct server *v, char digest[DIGEST_TEXT], struct error *err)
{
	struct flow_record record;
	int rc = flow_read_greeting(&v->s, err);

	if (rc == 0)
		rc = flow_read(&v->s, &record, err);
	if (rc == 0)
		return error_set(err, -EPIPE, "who fetches wants nothing");
	if (rc < 0)
		return rc;
	if (record.type != RECORD_WANT || record.size != RECORD_WANT_SIZE)
		return error_set(err, -EPROTO, "who fetches does not say which image");
	digest_from_bytes(record.data, digest);
	memcpy(v->token, record.data + 32, sizeof(v->token));
	return 0;
}

static int serve(struct server *v, unsigned patience_ms, struct error *err)
{
	char digest[DIGEST_TEXT];
	struct flow_record record;
	int rc = flow_greet(&v->s, err);

	if (rc == 0)
		rc = read_want(v, digest, err);
	if (rc == 0)
		rc = wait_for_image(v, digest, patience_ms, err);
	if (rc == 0 && stock_is_brought_by(&v->stock, v->token))
		rc = error_set(err, -EDEADLK, "it has only what comes by this very fetch");
	if (rc == 0)
		rc = send_image(&v->s, &v->stock, err);
	while (rc == 0 && (rc = flow_read(&v->s, &record, err)) > 0)
		rc = answer(v, &record, err);
	return rc;
}

int image_serve(int in, int out, unsigned patience_ms, struct progress *progress, struct error *err)
{
	struct server v = {
		.s = {.in = in, .out = out, .progress = progress, .silence_ms = SILENCE_MS},
		.stock = {.parts = {-1, -1, -1, -1}, .have = -1, .lock = -1},
		.buf = malloc(CHUNK_SIZE)};
	struct error reason = {{0}};
	int rc = v.buf ? serve(&v, patience_ms, &reason) : -ENOMEM;

	if (rc < 0) {
		flow_write_error(&v.s, rc, reason.text);
		error_set(err, rc, "%s", reason.text);
	}
	stock_close(&v.stock);
	flow_done(&v.s);
	free(v.buf);
	return rc;
}
