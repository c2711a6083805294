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
 * A device is a list of parts (struct state_part): objects with a table each, so that what
 * devices share (PCI function, MSI-X, queues) is described where it lives.
 *
 * Encoding, all little-endian: of a table {u16 number of fields, fields}; of a field {u16 name
 * length, name, u32 element size, u32 count, elements}, in the order of the table; of a list
 * {u16 number of parts, parts}; of a part {u16 name length, name, table}. Names are the
 * contract: they are never reused with another meaning.
 *
 * Arrays whose size is the host's (XSAVE area, lists of MSRs) are saved without the zeros at
 * their end, and restored where they fit.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/wire.h"

struct error;

struct state_field {
	const char *name;
	uint32_t offset; /* from the start of the object */
	uint32_t size;	 /* of one element: 1, 2, 4 or 8 bytes */
	uint32_t count;	 /* of elements; with trim the most there can be */
	bool trim;	 /* elements at the end that are zero are not saved */
};

#define STATE_FIELD_(type, member, element, n)                     \
	{                                                          \
		.name = #member, .offset = offsetof(type, member), \
		.size = sizeof(((type *)0)->element), .count = (n) \
	}
#define STATE_FIELD(type, member) STATE_FIELD_(type, member, member, 1)
#define STATE_ARRAY(type, member)             \
	STATE_FIELD_(type, member, member[0], \
		     sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]))
#define STATE_TRIMMED(type, member)                                                    \
	{                                                                              \
		.name = #member, .offset = offsetof(type, member),                     \
		.size = sizeof(((type *)0)->member[0]),                                \
		.count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), \
		.trim = true                                                           \
	}
#define STATE_END            \
	{                    \
		.name = NULL \
	}

struct state_part {
	const char *name; /* unique in its device */
	const struct state_field *fields;
	void *base;
};

/* Appends the fields; w->failed tells when they did not fit. */
void state_save(struct wire_writer *w, const struct state_field *fields, const void *base);

/*
 * Reads the fields back. Each must be there, with the same shape, in the table's order;
 * fields of the input that the table lacks are an error as well. On failure nothing at base
 * is changed. Returns 0 or -EBADMSG with the field's name in err.
 */
int state_restore(struct wire_reader *r, const struct state_field *fields, void *base,
		  struct error *err);

/* The same for n parts: all are checked before the first is changed. */
void state_save_parts(struct wire_writer *w, const struct state_part *parts, unsigned n);
int state_restore_parts(struct wire_reader *r, const struct state_part *parts, unsigned n,
			struct error *err);

/* Only checks, and skips what it checked. */
int state_check_parts(struct wire_reader *r, const struct state_part *parts, unsigned n,
		      struct error *err);

/* A name with its length, as in the format; get takes the name that must come next. */
void state_put_name(struct wire_writer *w, const char *name);
int state_get_name(struct wire_reader *r, const char *want, struct error *err);

#endif
