/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile kernel file. Whatever is accepted loads from bytes that the file has to addresses
 * above our own tables, and starts inside what was loaded.
 */

#include <stdlib.h>

#include "lib/error.h"
#include "vmm/x86/boot.h"

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel k;
	struct error err;
	unsigned inside = 0;

	if (kernel_parse(data, size < KERNEL_HEAD_SIZE ? size : KERNEL_HEAD_SIZE, size, &k, &err))
		return 0;
	REQUIRE(k.nsegments && k.nsegments <= KERNEL_SEGMENTS_MAX);
	REQUIRE(k.setup_header_size <= sizeof(k.setup_header));
	for (unsigned i = 0; i < k.nsegments; i++) {
		const struct kernel_segment *s = &k.segment[i];

		REQUIRE(s->offset <= size && s->file_size <= size - s->offset);
		REQUIRE(s->file_size <= s->mem_size);
		REQUIRE(s->gpa >= 0x100000 && s->gpa + s->mem_size > s->gpa);
		REQUIRE(s->gpa + s->mem_size <= k.end);
		inside += k.entry - s->gpa < s->mem_size;
	}
	REQUIRE(inside);
	return 0;
}
