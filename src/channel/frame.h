/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_FRAME_H
#define WISP_CHANNEL_FRAME_H

/*
 * Frames of the node protocol (docs/formats/node.md) from a stream of bytes that cuts them anywhere
 * and comes from anybody: memory grows with what has come, not with what was announced, and a
 * message has so many values and no more.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define FRAME_HEADER 5		    /* bytes before the payload */
#define FRAME_MAX (16u << 20)	    /* the most that a length says */
#define FRAME_VALUES_MAX (1u << 18) /* of a message, at most */
#define FRAME_STREAM 4		    /* bytes of a data frame's payload before the data */

enum frame_type {
	FRAME_MESSAGE = 1,
	FRAME_DATA,
	FRAME_ALIVE,
};

struct frame {
	enum frame_type type;
	json_t *message;     /* FRAME_MESSAGE: an object, a reference of the caller's */
	uint32_t stream;     /* FRAME_DATA, with the rest */
	const uint8_t *data; /* until the next frame_room() or frame_reader_done() */
	size_t size;
};

/* Collects the bytes of one peer. Zero but for max, the longest frame; free with _done(). */
struct frame_reader {
	size_t max; /* at most FRAME_MAX */
	/* Private. */
	uint8_t *buf;
	size_t start, end, room;
};

void frame_reader_done(struct frame_reader *r);

/* Where the next bytes are to be put, at least one: *n is how many fit. NULL: out of memory. */
uint8_t *frame_room(struct frame_reader *r, size_t *n);
/* So many were put there. */
void frame_added(struct frame_reader *r, size_t n);

/*
 * The next frame: 1 and *ret, 0 when it is not whole yet, -EMSGSIZE or -EBADMSG with the reason:
 * nothing that comes behind it can be understood.
 */
int frame_take(struct frame_reader *r, struct frame *ret, struct error *err);

/* Something of a frame has come that is not whole. */
bool frame_is_cut(const struct frame_reader *r);

/* The header of a frame whose payload has n bytes (at most FRAME_MAX - 1). */
void frame_header(uint8_t ret[FRAME_HEADER], enum frame_type type, size_t n);

/* A message as it is sent, header and all: the caller frees *ret. -EMSGSIZE, -ENOMEM. */
int frame_encode(const json_t *message, size_t max, uint8_t **ret, size_t *n, struct error *err);

/*
 * The same of the members of own and of rest, the text of an object (JSON_COMPACT) that goes to
 * many: neither is empty, and no member is in both.
 */
int frame_encode_with(const json_t *own, const char *rest, size_t max, uint8_t **ret, size_t *n,
		      struct error *err);

#endif
