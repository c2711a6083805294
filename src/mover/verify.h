/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_VERIFY_H
#define WISP_MOVER_VERIFY_H

/* Checks every byte of an epoch. */

#include <stdint.h>

#include "mover/epoch.h"
#include "mover/store.h"
#include "mover/work.h"

struct error;

/*
 * Manifest, index, the sum of all data, that they decompress, the bytes between them, that no
 * file is too many, and that the parent is the right one (not the parent's data: verify
 * that as well). *bytes, when not NULL, gets the size of all files. 0, or -EBADMSG and where.
 */
int verify_epoch(const struct store *store, uint64_t epoch, const struct progress *progress,
		 uint64_t *bytes, struct error *err);

/* Only the sums of all pages and what is between them, of an epoch that is open. */
int verify_pages(const struct epoch *epoch, const struct progress *progress, struct error *err);

#endif
