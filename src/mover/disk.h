/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISK_H
#define WISP_MOVER_DISK_H

/*
 * The content of a disk: a sparse file or a block device. Zeros and holes are the same and cost
 * nothing. All take descriptors without O_DIRECT; none moves their position. -ECANCELED when
 * progress (may be NULL) says so.
 */

#include <stdbool.h>
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

/*
 * Gives to the content of from, size bytes both. *cloned, when not NULL: the file
 * system shares the blocks, which takes no time.
 */
int disk_copy(int from, int to, uint64_t size, const struct progress *progress, bool *cloned,
	      struct error *err);

#endif
