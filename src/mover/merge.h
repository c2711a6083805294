/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MERGE_H
#define WISP_MOVER_MERGE_H

/*
 * Shortening what a store keeps: chains become one full epoch, old epochs go. At every moment all
 * epochs that are to stay can be restored. The store is open for writing.
 */

#include <stdint.h>

#include "mover/store.h"
#include "mover/work.h"

struct error;

/* What was done; the caller frees removed. */
struct merge_report {
	uint64_t *removed; /* numbers of the epochs that are gone */
	size_t nremoved;
	unsigned merged; /* epochs that were written again, full and with each page once */
};

/*
 * Makes an epoch (0: the newest) full in its place and removes the epochs it was based on, unless
 * others need them. ret may be NULL.
 */
int merge_epoch(const struct store *store, uint64_t epoch, const struct progress *progress,
		struct merge_report *ret, struct error *err);

/* Keeps these epochs and removes all others; those that are based on one that goes are merged. */
int merge_keep(const struct store *store, const uint64_t *keep, size_t n,
	       const struct progress *progress, struct merge_report *ret, struct error *err);

/* Keeps the newest epochs, at least one, and merges those of them that are based on others. */
int merge_prune(const struct store *store, unsigned keep, const struct progress *progress,
		struct merge_report *ret, struct error *err);

#endif
