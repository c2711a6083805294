/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_PAGE_H
#define WISP_MOVER_PAGE_H

/* Sets of pages of a chunk, and finding zero pages at the speed of memory. Any thread. */

#include <stdbool.h>
#include <stdint.h>

/* The first run of pages in a set that is not empty; returns the set without it. */
static inline uint64_t page_run(uint64_t set, unsigned *first, unsigned *n)
{
	uint64_t rest;

	*first = (unsigned)__builtin_ctzll(set);
	rest = ~(set >> *first);
	*n = rest ? (unsigned)__builtin_ctzll(rest) : 64 - *first;
	return *first + *n == 64 ? 0 : set >> (*first + *n) << (*first + *n);
}

/* n bytes are zero. */
bool page_is_zero(const void *p, uint64_t n);

/* Which pages of the mask are zero in a chunk. */
uint64_t page_zeros(const uint8_t *chunk, uint64_t mask);

/* Makes the pages of the set zero in a chunk; those that are are not written to. */
void page_clear(uint8_t *chunk, uint64_t set);

/*
 * Of the pages that lie one behind the other at data, one for each bit of mask, takes the zero
 * ones out: the others move together. Returns the bits of the zero pages.
 */
uint64_t page_squeeze(uint8_t *data, uint64_t mask);

#endif
