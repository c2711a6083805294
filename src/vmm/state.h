/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_STATE_H
#define WISP_VMM_STATE_H

/*
 * The saved state of a device as a table of named fields, so that saving, restoring and
 * the tests of both follow from one description:
 *
 *     static const struct state_field serial_state[] = {
 *             STATE_FIELD(struct serial, ier),
 *             STATE_ARRAY(struct serial, fifo),
 *             STATE_END,
 *     };
 *
 * Encoding: per field {u16 name length, name, u32 element size, u32 count, elements}, all
 * little-endian, in the order of the table. Names are the contract: they are never reused
 * with another meaning.
 */

#include <stddef.h>
#include <stdint.h>

#include "lib/wire.h"

struct error;

struct state_field {
	const char *name;
	uint32_t offset; /* from the start of the object */
	uint32_t size;	 /* of one element: 1, 2, 4 or 8 bytes */
	uint32_t count;
};

#define STATE_FIELD(type, member)                                               \
	{                                                                       \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1 \
	}
#define STATE_ARRAY(type, member)                                                    \
	{                                                                            \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),     \
			sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]) \
	}
#define STATE_END \
	{         \
		0 \
	}

/* Appends the fields; w->failed tells when they did not fit. */
void state_save(struct wire_writer *w, const struct state_field *fields, const void *base);

/*
 * Reads the fields back. Each must be there, with the same shape, in the table's order;
 * fields of the input that the table lacks are an error as well. On failure nothing at base
 * is changed. Returns 0 or -EBADMSG with the field's name in err.
 */
int state_restore(struct wire_reader *r, const struct state_field *fields, void *base,
		  struct error *err);

#endif
