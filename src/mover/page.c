/* SPDX-License-Identifier: Apache-2.0 */
/* Zero pages. */

#include "mover/page.h"

#include <string.h>

#include "mover/index.h"

static bool is_zero_portable(const uint64_t *p, uint64_t n)
{
	for (const uint64_t *end = p + n / 8; p < end; p += 16) {
		uint64_t any = 0;

		for (unsigned i = 0; i < 16; i++)
			any |= p[i];
		if (any)
			return false;
	}
	return true;
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2"))) static bool is_zero_avx2(const void *data, uint64_t n)
{
	const __m256i *p = data;

	for (const __m256i *end = p + n / 32; p < end; p += 4) {
		__m256i any =
			_mm256_or_si256(_mm256_or_si256(p[0], p[1]), _mm256_or_si256(p[2], p[3]));

		if (!_mm256_testz_si256(any, any))
			return false;
	}
	return true;
}

bool page_is_zero(const void *p, uint64_t n)
{
	if (__builtin_cpu_supports("avx2"))
		return is_zero_avx2(p, n);
	return is_zero_portable(p, n);
}
#else
bool page_is_zero(const void *p, uint64_t n)
{
	return is_zero_portable(p, n);
}
#endif

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
