/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_JSONLINE_H
#define WISP_LIB_JSONLINE_H

/*
 * One JSON object per line over a stream: the framing of the control sockets
 * (docs/formats/control.md). Lines are limited so that a peer cannot make us allocate
 * without bound.
 */

#include <jansson.h>
#include <stddef.h>

struct error;

#define JSONLINE_MAX (64 * 1024) /* largest request; answers may be longer */

/* Collects bytes of one peer until a line is whole. Zero-initialise; free with _done(). */
struct jsonline {
	char *buf;
	size_t used, room;
};

void jsonline_done(struct jsonline *line);

/*
 * Reads what the (non-blocking or readable) fd has. Returns 1 when a whole line is there,
 * 0 when not yet, -EPIPE at the end of file, -EMSGSIZE when the line is longer than max,
 * or -errno.
 */
int jsonline_read(struct jsonline *line, int fd, size_t max);

/*
 * Takes the first whole line out and parses it as an object. Returns 0 and a new reference
 * in *ret, -EAGAIN when no line is whole, -EBADMSG with the parser's words in err.
 */
int jsonline_take(struct jsonline *line, json_t **ret, struct error *err);

/* Writes the value and a newline. Blocking fd. Returns 0 or -errno. Does not take value. */
int jsonline_write(int fd, const json_t *value);

/* Client side: sends the request on a connected blocking fd and waits for one answer. */
int jsonline_call(int fd, const json_t *request, json_t **answer, struct error *err);

#endif
