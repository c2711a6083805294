/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_WINDOW_H
#define WISP_AGENT_WINDOW_H

/*
 * The window of a stream: its last bytes, known by their position since its start. Bytes are
 * added at the end, and dropped at the front once they are safe elsewhere. Memory that is
 * not needed is given back. One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct window {
	uint8_t *data; /* a ring */
	size_t size;
	uint64_t base;	     /* position of its first byte */
	uint64_t start, end; /* positions of what is kept */
	bool ended;	     /* the stream has, for its user to set */
};

/* size: a multiple of the page size. -ENOMEM. */
int window_init(struct window *w, size_t size);
void window_done(struct window *w);

/* How many bytes fit in one piece, to be written at *ret; 0 when it is full. */
size_t window_room(const struct window *w, uint8_t **ret);
/* That many were written there. */
void window_add(struct window *w, size_t n);

/* How many bytes there are in one piece from that position (start to end) on. */
size_t window_get(const struct window *w, uint64_t position, const uint8_t **ret);

/* Drops what is before the position, which is not beyond the end. */
void window_drop(struct window *w, uint64_t position);

#endif
