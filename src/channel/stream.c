/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: a ring of what waits for credit, and whether each direction has ended. */

#include "channel/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "lib/error.h"

static void stream_free(struct stream *stream)
{
	free(stream->waiting);
	free(stream);
}

void streams_done(struct streams *s)
{
	while (s->first) {
		struct stream *stream = s->first;

		s->first = stream->next;
		stream_free(stream);
	}
	s->count = 0;
}

int streams_open(struct streams *s, uint32_t number, struct error *err)
{
	struct stream *stream;

	if (number <= s->last[number & 1])
		return error_set(err, -EPROTO, "stream %u does not follow on stream %u", number,
				 s->last[number & 1]);
	if (s->count == CONN_STREAMS_MAX)
		return error_set(err, -EMFILE, "more than %u streams", CONN_STREAMS_MAX);
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return error_set(err, -ENOMEM, "out of memory");
	s->last[number & 1] = number;
	stream->number = number;
	stream->out_credit = stream->in_credit = CONN_WINDOW;
	stream->next = s->first;
	s->first = stream;
	s->count++;
	return 0;
}

struct stream *streams_find(struct streams *s, uint32_t number)
{
	for (struct stream *i = s->first; i; i = i->next)
		if (i->number == number)
			return i;
	return NULL;
}

bool streams_settle(struct streams *s, struct stream *stream)
{
	struct stream **link = &s->first;

	if (!stream->out_ended || !stream->in_ended)
		return false;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	s->count--;
	stream_free(stream);
	return true;
}

int stream_put(struct stream *stream, const void *data, size_t n)
{
	size_t at, first;

	if (stream->out_ends)
		return -EPIPE;
	if (n > CONN_WINDOW - stream->used)
		return -EAGAIN;
	if (!stream->waiting)
		stream->waiting = malloc(CONN_WINDOW);
	if (!stream->waiting)
		return -ENOMEM;
	at = (stream->start + stream->used) % CONN_WINDOW;
	first = n < CONN_WINDOW - at ? n : CONN_WINDOW - at;
	memcpy(stream->waiting + at, data, first);
	memcpy(stream->waiting, (const uint8_t *)data + first, n - first);
	stream->used += n;
	return 0;
}

size_t stream_get(struct stream *stream, uint8_t *ret, size_t n)
{
	size_t first;

	if (n > stream->used)
		n = stream->used;
	if (n > stream->out_credit)
		n = stream->out_credit;
	if (!n)
		return 0;
	first = n < CONN_WINDOW - stream->start ? n : CONN_WINDOW - stream->start;
	memcpy(ret, stream->waiting + stream->start, first);
	memcpy(ret + first, stream->waiting, n - first);
	stream->start = (stream->start + n) % CONN_WINDOW;
	stream->used -= n;
	stream->out_credit -= n;
	return n;
}

bool stream_ready(const struct stream *stream)
{
	if (stream->used)
		return stream->out_credit > 0;
	return stream->out_ends && !stream->out_ended;
}
