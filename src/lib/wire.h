/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_WIRE_H
#define WISP_LIB_WIRE_H

/*
 * Length-checked encoding and decoding, field by field, fixed little-endian. Errors are
 * sticky: a reader that ran over its end (or a writer without room) returns zeros and
 * remembers it, so that a message is decoded whole and checked once at the end with
 * wire_ok(). Inline, no allocation, no locks.
 */

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct wire_reader {
	const uint8_t *data; /* not owned */
	size_t size, pos;
	bool failed;
};

struct wire_writer {
	uint8_t *data; /* not owned */
	size_t size, pos;
	bool failed;
};

static inline struct wire_reader wire_reader(const void *data, size_t size)
{
	return (struct wire_reader){.data = (const uint8_t *)data, .size = size};
}

static inline struct wire_writer wire_writer(void *data, size_t size)
{
	return (struct wire_writer){.data = (uint8_t *)data, .size = size};
}

/* A pointer to the next n bytes inside the message, NULL when they are not there. */
static inline const void *wire_get_bytes(struct wire_reader *r, size_t n)
{
	const void *p = r->data + r->pos;

	if (r->failed || n > r->size - r->pos) {
		r->failed = true;
		return NULL;
	}
	r->pos += n;
	return p;
}

static inline void wire_put_bytes(struct wire_writer *w, const void *p, size_t n)
{
	if (w->failed || n > w->size - w->pos) {
		w->failed = true;
		return;
	}
	if (n)
		memcpy(w->data + w->pos, p, n);
	w->pos += n;
}

#define WIRE_DEFINE(bits, to_le, from_le)                                            \
	static inline uint##bits##_t wire_get_u##bits(struct wire_reader *r)         \
	{                                                                            \
		const void *p = wire_get_bytes(r, sizeof(uint##bits##_t));           \
		uint##bits##_t v = 0;                                                \
                                                                                     \
		if (p)                                                               \
			memcpy(&v, p, sizeof(v));                                    \
		return from_le(v);                                                   \
	}                                                                            \
	static inline void wire_put_u##bits(struct wire_writer *w, uint##bits##_t v) \
	{                                                                            \
		v = to_le(v);                                                        \
		wire_put_bytes(w, &v, sizeof(v));                                    \
	}
#define WIRE_SAME(v) (v)
WIRE_DEFINE(8, WIRE_SAME, WIRE_SAME)
WIRE_DEFINE(16, htole16, le16toh)
WIRE_DEFINE(32, htole32, le32toh)
WIRE_DEFINE(64, htole64, le64toh)
#undef WIRE_DEFINE
#undef WIRE_SAME

/* Nothing ran over the end. */
static inline bool wire_ok(const struct wire_reader *r)
{
	return !r->failed;
}

/* Nothing ran over the end and nothing is left: the message had exactly these fields. */
static inline bool wire_done(const struct wire_reader *r)
{
	return !r->failed && r->pos == r->size;
}

#endif
