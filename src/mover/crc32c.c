/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C by ISA-L, which takes the best instructions that the processor has. */

#include "mover/crc32c.h"

#include <isa-l/crc.h>

#define PIECE (1u << 30) /* ISA-L counts in ints */

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size) {
		size_t n = size < PIECE ? size : PIECE;

		/* It wants, and returns, what is inside the two inversions of RFC 3720 B.4. */
		crc = ~crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, ~crc);
		p += n;
		size -= n;
	}
	return crc;
}
