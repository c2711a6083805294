/* SPDX-License-Identifier: Apache-2.0 */
/* Zero pages. */

#include "mover/page.h"

#include <isa-l/mem_routines.h>
#include <string.h>

#include "mover/index.h"

bool page_is_zero(const void *p, uint64_t n)
{
	return isal_zero_detect((void *)(uintptr_t)p, n) == 0;
}

uint64_t page_zeros(const uint8_t *chunk, uint64_t mask)
{
	uint64_t zero = 0;

	for (; mask; mask &= mask - 1)
		if (page_is_zero(chunk + (unsigned)__builtin_ctzll(mask) * PAGE_BYTES, PAGE_BYTES))
			zero |= mask & -mask;
	return zero;
}

uint64_t page_squeeze(uint8_t *data, uint64_t mask)
{
	uint8_t *to = data;
	uint64_t zero = 0;

	for (uint64_t left = mask; left; left &= left - 1, data += PAGE_BYTES) {
		if (page_is_zero(data, PAGE_BYTES)) {
			zero |= left & -left;
			continue;
		}
		if (to != data)
			memcpy(to, data, PAGE_BYTES);
		to += PAGE_BYTES;
	}
	return zero;
}

void page_clear(uint8_t *chunk, uint64_t set)
{
	for (set &= ~page_zeros(chunk, set); set; set &= set - 1)
		memset(chunk + (size_t)__builtin_ctzll(set) * PAGE_BYTES, 0, PAGE_BYTES);
}
