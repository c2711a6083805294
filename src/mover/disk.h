/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISK_H
#define WISP_MOVER_DISK_H

/*
 * The content of a disk: a sparse file or a block device. Zeros and holes are the same and cost
 * nothing. All take descriptors without O_DIRECT; none moves their position. -ECANCELED when
 * progress (may be NULL) says so.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"
#include "mover/work.h"

struct error;

/*
 * The sum of size bytes (docs/formats/checkpoint.md); *bytes is how many of them are in blocks
 * that are not zero.
 */
int disk_sum(int fd, uint64_t size, const struct progress *progress, char ret[DIGEST_TEXT],
	     uint64_t *bytes, struct error *err);

/* Has the file to share the blocks of from, where the file system can: that takes no time. */
bool disk_clone(int from, int to);

/*
 * Gives to the content of from, size bytes both. What is the same is not written again; *written
 * (or NULL) is how much was not.
 */
int disk_copy(int from, int to, uint64_t size, const struct progress *progress, uint64_t *written,
	      struct error *err);

/*
 * Whether all that is not zero of a disk of size bytes, a multiple of 512, is what the whole one
 * has there, as when somebody was killed who filled it. 1; 0: *place is a byte's where it is not.
 */
int disk_is_part(int fd, int whole, uint64_t size, const struct progress *progress, uint64_t *place,
		 struct error *err);

#define DISK_BLOCK 65536u /* what is zero or not; part of the format */

/* One look at all blocks that are not zero; block returns not 0 to end it with that. */
struct disk_walk {
	int fd;
	uint64_t size;
	const struct progress *progress;
	int (*block)(void *arg, uint64_t offset, const uint8_t *data, size_t n, struct error *err);
	void *arg;
};
int disk_walk(const struct disk_walk *w, struct error *err);

/* The block from at on where data may be; at's own where holes cannot be told. */
uint64_t disk_next_data(const struct disk_walk *w, uint64_t at);

/* The same file by a descriptor of our own: whatever it was opened with, without O_DIRECT. -1. */
int disk_open_again(int fd, bool write);

/*
 * Writes out what the host still has in memory of it, piece by piece, so that what has to wait for
 * that later need not wait long. cancel may be NULL.
 */
int disk_flush(int fd, uint64_t size, const _Atomic bool *cancel, struct error *err);

/* Reads all of it. */
int disk_read(int fd, uint64_t offset, uint8_t *data, size_t n, struct error *err);

/* Writes all of it there. */
int disk_write(int fd, uint64_t offset, const uint8_t *data, size_t n, struct error *err);

#endif
