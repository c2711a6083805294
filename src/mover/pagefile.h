/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_PAGEFILE_H
#define WISP_MOVER_PAGEFILE_H

/*
 * A page file that one thread appends to: data collect in an aligned buffer, which is written
 * in large sequential pieces, past the page cache where that works.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct pagefile {
	int fd; /* -1: not begun */
	bool direct;
	char name[32];
	uint8_t *buf;
	size_t room, used;
	uint64_t written; /* bytes of the file before the buffer */
	uint64_t synced;  /* up to where writing back was begun */
};

/*
 * Makes pages.NUMBER in the folder. direct asks for O_DIRECT, which is left out where the file
 * system refuses it.
 */
int pagefile_begin(struct pagefile *f, int dir, unsigned number, bool direct, struct error *err);

/*
 * Makes room for size more bytes at a place that is a multiple of align (a power of two, 4096 at
 * most), with zeros before it, and returns it in *ret; it is where pagefile_add() will put them.
 */
int pagefile_reserve(struct pagefile *f, size_t size, size_t align, uint8_t **ret,
		     struct error *err);

/* Appends what was put in place: size bytes, at most what was reserved. Returns its place. */
uint64_t pagefile_add(struct pagefile *f, size_t size);

/* Writes what is left, with zeros up to a multiple of 4096, and syncs the file. */
int pagefile_finish(struct pagefile *f, struct error *err);

/* Closes the file and frees the buffer. */
void pagefile_done(struct pagefile *f);

#endif
