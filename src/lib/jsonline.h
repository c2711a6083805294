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

#define JSONLINE_FDS 4 /* descriptors of a peer that wait to be taken, at most */

/* Collects bytes of one peer until a line is whole. Zero-initialise; free with _done(). */
struct jsonline {
	char *buf;
	size_t used, room;
	int fd[JSONLINE_FDS]; /* of jsonline_receive() */
	unsigned nfds;
};

void jsonline_done(struct jsonline *line);

/*
 * Reads what the (non-blocking or readable) fd has. Returns 1 when a whole line is there,
 * 0 when not yet, -EPIPE at the end of file, -EMSGSIZE when the line is longer than max,
 * or -errno.
 */
int jsonline_read(struct jsonline *line, int fd, size_t max);

/*
 * The same from a UNIX socket on which descriptors may come along (SCM_RIGHTS); they are kept,
 * in order, until taken. -EMFILE when more come than can wait.
 */
int jsonline_receive(struct jsonline *line, int fd, size_t max);

/* Takes the descriptor that came first; -1: there is none. The caller owns it. */
int jsonline_take_fd(struct jsonline *line);

/*
 * Takes the first whole line out and parses it as an object. Returns 0 and a new reference
 * in *ret, -EAGAIN when no line is whole, -EBADMSG with the parser's words in err.
 */
int jsonline_take(struct jsonline *line, json_t **ret, struct error *err);

/* Writes the value and a newline. Blocking fd. Returns 0 or -errno. Does not take value. */
int jsonline_write(int fd, const json_t *value);

/* The same on a UNIX socket, with a descriptor that the peer gets (-1: none). */
int jsonline_write_fd(int fd, const json_t *value, int pass);

/* Client side: sends the request on a connected blocking fd and waits for one answer. */
int jsonline_call(int fd, const json_t *request, json_t **answer, struct error *err);

#endif
