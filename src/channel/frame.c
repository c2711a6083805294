/* SPDX-License-Identifier: Apache-2.0 */
/* Frames out of bytes and back. */

#include "channel/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define ROOM_LEAST 4096u
#define FRAME_LEAST 256u
#define ROOM_STEP (128u << 10) /* nothing longer is read at once where no frame is that long */

void frame_reader_done(struct frame_reader *r)
{
	free(r->buf);
	*r = (struct frame_reader){.max = r->max};
}

static void forget_taken(struct frame_reader *r)
{
	if (r->start == r->end && r->room > ROOM_STEP)
		frame_reader_done(r);
	else if (r->start)
		memmove(r->buf, r->buf + r->start, r->end - r->start);
	r->end -= r->start;
	r->start = 0;
}

/* Doubles while it fills: what is announced and does not come costs nothing. */
uint8_t *frame_room(struct frame_reader *r, size_t *n)
{
	forget_taken(r);
	if (r->end == r->room) {
		size_t more = r->room ? r->room * 2 : ROOM_LEAST;
		uint8_t *bigger = realloc(r->buf, more);

		if (!bigger)
			return NULL;
		r->buf = bigger;
		r->room = more;
	}
	*n = r->room - r->end;
	return r->buf + r->end;
}

void frame_added(struct frame_reader *r, size_t n)
{
	r->end += n;
}

bool frame_is_cut(const struct frame_reader *r)
{
	return r->start < r->end;
}

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

/* What begins a value or follows one, outside of texts: an upper bound of values, before any is
 * made. */
static size_t count_values(const uint8_t *p, size_t n)
{
	size_t count = 1;
	bool text = false;

	for (size_t i = 0; i < n; i++) {
		if (text && p[i] == '\\')
			i++;
		else if (p[i] == '"')
			text = !text;
		else if (!text && (p[i] == ',' || p[i] == '[' || p[i] == '{'))
			count++;
	}
	return count;
}

static int parse_message(const uint8_t *p, size_t n, json_t **ret, struct error *err)
{
	json_error_t why;
	json_t *value;

	if (count_values(p, n) > FRAME_VALUES_MAX)
		return error_set(err, -EMSGSIZE, "a message of more than %u values",
				 FRAME_VALUES_MAX);
	value = json_loadb((const char *)p, n, JSON_REJECT_DUPLICATES, &why);
	if (value && json_is_object(value)) {
		*ret = value;
		return 1;
	}
	json_decref(value);
	if (value)
		return error_set(err, -EBADMSG, "a message that is no JSON object");
	return error_set(err, -EBADMSG, "a message that is no JSON: %s", why.text);
}

static int parse(uint8_t type, const uint8_t *p, size_t n, struct frame *ret, struct error *err)
{
	*ret = (struct frame){.type = type};
	switch (type) {
	case FRAME_MESSAGE:
		return parse_message(p, n, &ret->message, err);
	case FRAME_DATA:
		if (n < FRAME_STREAM)
			return error_set(err, -EBADMSG, "data of no stream");
		ret->stream = get_u32(p);
		ret->data = p + FRAME_STREAM;
		ret->size = n - FRAME_STREAM;
		return 1;
	case FRAME_ALIVE:
		if (n)
			return error_set(err, -EBADMSG, "a keep-alive of %zu bytes", n);
		return 1;
	default:
		return error_set(err, -EBADMSG, "a frame of type %u", type);
	}
}

int frame_take(struct frame_reader *r, struct frame *ret, struct error *err)
{
	const uint8_t *p = r->buf + r->start;
	size_t have = r->end - r->start;
	uint32_t length;

	if (have < 4)
		return 0;
	length = get_u32(p);
	if (!length)
		return error_set(err, -EBADMSG, "a frame without a type");
	if (length > r->max)
		return error_set(err, -EMSGSIZE, "a frame of %u bytes: at most %zu", length,
				 r->max);
	if (have - 4 < length)
		return 0;
	r->start += 4 + (size_t)length;
	return parse(p[4], p + FRAME_HEADER, length - 1, ret, err);
}

void frame_header(uint8_t ret[FRAME_HEADER], enum frame_type type, size_t n)
{
	uint32_t length = htonl((uint32_t)n + 1);

	memcpy(ret, &length, sizeof(length));
	ret[4] = (uint8_t)type;
}

/* A frame that grows as its payload is written. */
struct writer {
	uint8_t *frame;
	size_t used, room, max; /* max: of the payload */
	int code;
};

static int writer_add(const char *p, size_t n, void *arg)
{
	struct writer *w = arg;
	size_t more = w->room;
	uint8_t *bigger;

	if (w->used + n >= FRAME_HEADER + w->max) {
		w->code = -EMSGSIZE;
		return -1;
	}
	while (more < w->used + n)
		more = more ? more * 2 : FRAME_LEAST;
	bigger = more > w->room ? realloc(w->frame, more) : w->frame;
	if (!bigger) {
		w->code = -ENOMEM;
		return -1;
	}
	w->frame = bigger;
	w->room = more;
	memcpy(bigger + w->used, p, n);
	w->used += n;
	return 0;
}

/* The header is known at last. */
static int writer_finish(struct writer *w, int failed, uint8_t **ret, size_t *n, struct error *err)
{
	if (failed) {
		free(w->frame);
		if (w->code == -EMSGSIZE)
			return error_set(err, -EMSGSIZE, "a message of %zu bytes or more", w->max);
		return error_set(err, -ENOMEM, "a message that cannot be written");
	}
	frame_header(w->frame, FRAME_MESSAGE, w->used - FRAME_HEADER);
	*ret = w->frame;
	*n = w->used;
	return 0;
}

int frame_encode(const json_t *message, size_t max, uint8_t **ret, size_t *n, struct error *err)
{
	static const char header[FRAME_HEADER];
	struct writer w = {.max = max};
	int failed = writer_add(header, FRAME_HEADER, &w) ||
		     json_dump_callback(message, writer_add, &w, JSON_COMPACT);

	return writer_finish(&w, failed, ret, n, err);
}

int frame_encode_with(const json_t *own, const char *rest, size_t max, uint8_t **ret, size_t *n,
		      struct error *err)
{
	static const char header[FRAME_HEADER];
	struct writer w = {.max = max};
	int failed = writer_add(header, FRAME_HEADER, &w) ||
		     json_dump_callback(own, writer_add, &w, JSON_COMPACT);

	/* Over the brace that ends own goes a comma, over the one that begins the rest nothing. */
	if (!failed) {
		w.frame[w.used - 1] = ',';
		failed = writer_add(rest + 1, strlen(rest) - 1, &w);
	}
	return writer_finish(&w, failed, ret, n, err);
}
