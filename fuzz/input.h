/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_FUZZ_INPUT_H
#define WISP_FUZZ_INPUT_H

/* Takes numbers from a fuzz input; zeros behind its end. */

#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *data;
	size_t size, pos;
};

static inline uint64_t input_number(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes && in->pos < in->size; i++)
		value |= (uint64_t)in->data[in->pos++] << 8 * i;
	return value;
}

static inline uint8_t input_u8(struct input *in)
{
	return (uint8_t)input_number(in, 1);
}

/* The widths of accesses: 1, 2, 4 and 8. */
static inline unsigned input_width(struct input *in)
{
	return 1u << (input_u8(in) & 3);
}

#endif
