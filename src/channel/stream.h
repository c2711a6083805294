/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_STREAM_H
#define WISP_CHANNEL_STREAM_H

/* The streams of one connection: credit of both directions, and what waits for it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct stream {
	struct stream *next;
	uint32_t number;
	uint64_t out_credit; /* bytes that the peer lets us send */
	uint64_t in_credit;  /* and we it */
	uint8_t *waiting;    /* to be sent: CONN_WINDOW, made when it is first needed */
	size_t start, used;  /* of it, in a ring */
	bool out_ends, out_ended, in_ended;
};

/* Zero to begin with. */
struct streams {
	struct stream *first;
	unsigned count;
	uint32_t last[2]; /* number opened, by its parity */
};

void streams_done(struct streams *s);
int streams_open(struct streams *s, uint32_t number, struct error *err);
/* NULL: there is none of this number. */
struct stream *streams_find(struct streams *s, uint32_t number);
/* Frees it when both directions have ended. True: it is gone. */
bool streams_settle(struct streams *s, struct stream *stream);

/* -EAGAIN: does not fit. -EPIPE: ended. */
int stream_put(struct stream *stream, const void *data, size_t n);
/* Takes at most n bytes that have credit out; how many. */
size_t stream_get(struct stream *stream, uint8_t *ret, size_t n);
/* Something can be sent: data that has credit, or the end. */
bool stream_ready(const struct stream *stream);

#endif
