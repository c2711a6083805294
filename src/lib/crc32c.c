/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C by the crc32 instruction in three interleaved lanes, or by a table. */

#include "lib/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reflected, RFC 3720 B.4 */

/* One nibble a step: slow is good enough for processors older than 2009. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size)
{
	const uint8_t *p = data;
	uint32_t table[16];

	for (uint32_t i = 0; i < 16; i++) {
		table[i] = i;
		for (unsigned bit = 0; bit < 4; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? POLYNOMIAL : 0);
	}
	crc = ~crc;
	while (size--) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

#ifdef __x86_64__
#include <immintrin.h>

/*
 * The instruction takes 8 bytes a cycle but three cycles to finish, so three lanes keep it busy.
 * The sum of a lane is moved behind the next ones by a carry-less multiplication with
 * x^(8 * bytes - 33) mod P, reflected; crc32 of the product adds the missing x^33.
 */
#define LANE 1360 /* three are a page, but for 16 bytes */
#define SHIFT_1 0x3f70cc6fu
#define SHIFT_2 0x5aa1f3cfu

static uint64_t load(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

__attribute__((target("sse4.2,pclmul"))) static uint64_t shift(uint64_t crc, uint32_t by)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
					       _mm_cvtsi64_si128((long long)by), 0);

	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
by_instruction(uint32_t crc, const uint8_t *p, size_t size)
{
	uint64_t a = ~crc;

	while (size >= 3 * LANE) {
		uint64_t b = 0, c = 0;

		for (unsigned i = 0; i < LANE; i += 8) {
			a = _mm_crc32_u64(a, load(p + i));
			b = _mm_crc32_u64(b, load(p + LANE + i));
			c = _mm_crc32_u64(c, load(p + 2 * LANE + i));
		}
		a = shift(a, SHIFT_2) ^ shift(b, SHIFT_1) ^ c;
		p += 3 * LANE;
		size -= 3 * LANE;
	}
	for (; size >= 8; p += 8, size -= 8)
		a = _mm_crc32_u64(a, load(p));
	while (size--)
		a = _mm_crc32_u8((uint32_t)a, *p++);
	return ~(uint32_t)a;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		return by_instruction(crc, data, size);
	return crc32c_portable(crc, data, size);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
	return crc32c_portable(crc, data, size);
}
#endif
