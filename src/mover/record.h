/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_RECORD_H
#define WISP_MOVER_RECORD_H

/*
 * Streams of records {type, flags, length, sums}: what the index of a checkpoint and the wire
 * are made of (docs/formats/checkpoint.md). A stream belongs to one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

enum record_type {
	RECORD_HEAD = 1,
	RECORD_STATE = 2,
	RECORD_ROWS = 3,
	RECORD_END = 4,
	RECORD_PAGES = 5,
	RECORD_MANIFEST = 6,
};

#define RECORD_OPTIONAL 1u /* flag: who does not know the type skips the record */
#define RECORD_HEADER_SIZE 32

struct record_writer {
	int fd; /* blocking, not owned */
	uint32_t next;
};

/* Appends a record. 0 or -errno; after a failure the stream is of no use. */
int record_append(struct record_writer *w, uint32_t type, uint32_t flags, const void *body,
		  uint64_t length);

struct record_reader {
	int fd;		  /* blocking, not owned */
	const char *name; /* of the file or peer, for errors; not owned */
	uint64_t left;	  /* no more bytes than that are read (or allocated) */
	uint32_t next;
	/* The record that was read last; body is valid until the next one. */
	uint32_t type;
	uint64_t length;
	uint8_t *body;
	size_t room;
};

/*
 * Reads the next record of a type that is known; optional ones of other types are checked and
 * skipped. 0; -EBADMSG for damage, an early end or an unknown mandatory type; or -errno.
 */
int record_next(struct record_reader *r, struct error *err);

void record_reader_done(struct record_reader *r);

#endif
