/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_HUGE_H
#define WISP_MOVER_HUGE_H

/*
 * Huge pages of a VM that come in parts: they are put together in the memfd, where the VM does not
 * see them yet, and shown to it when they are whole. Sets are as elsewhere: a word for each chunk.
 * Any thread, if not said otherwise.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct faults;
struct huge;

/* Has the memfd mapped. faults outlives it; what was shown by a mover before us is. */
int huge_create(const struct faults *faults, int memfd, uint64_t memory, struct huge **ret,
		struct error *err);
void huge_destroy(struct huge *h); /* accepts NULL */

/* The chunks of the huge page that a chunk is of: the first, and how many. */
uint64_t huge_first(const struct huge *h, uint64_t chunk);
unsigned huge_chunks(const struct huge *h);

/* Where to put the pages of a chunk that is not shown. */
uint8_t *huge_at(const struct huge *h, uint64_t chunk);
bool huge_is_shown(const struct huge *h, uint64_t chunk);

/*
 * One thread, while nothing comes: these pages are to come, before the huge pages they are of are
 * whole. zero: of each chunk, which others are zero; read when a huge page is shown. -EBADMSG when
 * that makes no sense.
 */
int huge_expect(struct huge *h, const uint64_t *pages, const _Atomic uint64_t *zero,
		struct error *err);

/* Shows, at once, all huge pages without a page in this set. One thread, in the begin. */
int huge_show_others(struct huge *h, const uint64_t *missing, struct error *err);

/* n pages have been put into the chunk. 1: that made the huge page whole, and it is shown now. */
int huge_came(struct huge *h, uint64_t chunk, unsigned n, struct error *err);

/*
 * Shows the huge page if nothing of it is to come any more. 1: it is shown. 0: it is not, something
 * has to come, or another thread is showing it; that wakes who waits.
 */
int huge_show_if_whole(struct huge *h, uint64_t chunk, struct error *err);

#endif
