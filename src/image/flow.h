/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_FLOW_H
#define WISP_IMAGE_FLOW_H

/*
 * Records of a stream of an image (docs/formats/image-stream.md), over any blocking descriptors:
 * files, pipes, sockets. One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct progress;

enum record_type {
	RECORD_IMAGE = 1,
	RECORD_CHUNK,
	RECORD_END,
	RECORD_WAIT,
	RECORD_ERROR,
	RECORD_WANT,
	RECORD_LACK,
};

#define RECORD_TEXT 4096
#define RECORD_WANT_SIZE (32 + 16)

struct flow_record {
	enum record_type type;
	const uint8_t *data; /* the stream's, until the next one is read */
	size_t size;
};

/* Initialise with in, out (-1: none) and what may end it; free with flow_done(). */
struct flow {
	int in, out;		   /* the caller's */
	struct progress *progress; /* an interrupt of it ends a wait; or NULL */
	int silence_ms;		   /* the longest wait for a byte; -1: no limit */
	uint8_t *buf;
	size_t room;
};

void flow_done(struct flow *s);

/*
 * Writes the 8 bytes that a side begins with, and reads the other's. -EPROTO: it is another
 * stream; -EPIPE: it ended; -ETIMEDOUT; -EINTR; or -errno.
 */
int flow_greet(struct flow *s, struct error *err);
int flow_read_greeting(struct flow *s, struct error *err);

/*
 * Reads the next record: 1, or 0 at an end of the stream between two of them. -EPROTO: it is none,
 * -EBADMSG: it was changed on its way; as above.
 */
int flow_read(struct flow *s, struct flow_record *ret, struct error *err);

/* Writes one whose payload is head, then data. */
int flow_write(struct flow *s, enum record_type type, const void *head, size_t head_size,
	       const void *data, size_t size, struct error *err);

/* What went wrong here, for the other side. */
int flow_write_error(struct flow *s, int code, const char *text);

/* The other side's error as ours: always -EREMOTEIO. */
int flow_take_error(const struct flow_record *record, struct error *err);

/* Whether the other side has ended, or something is there to be read, without waiting longer than
 * this. */
bool flow_has_input(const struct flow *s, int timeout_ms);

#endif
