/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_PAGE_H
#define WISP_MOVER_PAGE_H

/* Finding zero pages at the speed of memory. Any thread. */

#include <stdbool.h>
#include <stdint.h>

/* n bytes are zero; p is aligned to 32 and n a multiple of 128. */
bool page_is_zero(const void *p, uint64_t n);

/*
 * Of the pages that lie one behind the other at data, one for each bit of mask, takes the zero
 * ones out: the others move together. Returns the bits of the zero pages.
 */
uint64_t page_squeeze(uint8_t *data, uint64_t mask);

#endif
