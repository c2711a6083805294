/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory are mapped. mincore() says of huge pages whether they are in the
 * memfd; the page table is what counts.
 */

#include "vmm/mapped.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/memory.h"

/* Linux admin-guide/mm/pagemap.rst */
#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
/*
 * The kernel may be moving a page: its entry is no present one then, but comes back at once. A
 * small page passes for swapped meanwhile, of a huge one nothing is said (fs/proc/task_mmu.c,
 * pagemap_hugetlb_range()). So what is not mapped is looked at again.
 */
#define LOOKS 5
#define NAP_US 10000

/* Adds what is mapped now to the set. *all: every page is in it. */
static int look(int table, const struct memory *mem, uint64_t *set, bool *all)
{
	*all = true;
	for (uint64_t i = 0; i < mem->size / mem->page_size; i++) {
		uintptr_t at = (uintptr_t)mem->region[0].host + i * mem->page_size;
		uint64_t entry = 0, bit = 1ull << i % 64;
		int rc = set[i / 64] & bit ? 0
					   : io_pread_full(table, &entry, sizeof(entry),
							   (off_t)(at / 4096 * sizeof(entry)));

		if (rc < 0)
			return rc;
		if (entry & (PRESENT | SWAPPED))
			set[i / 64] |= bit;
		*all &= (set[i / 64] & bit) != 0;
	}
	return 0;
}

int mapped_pages(int table, const struct memory *mem, struct error *err)
{
	uint64_t bytes = (mem->size / mem->page_size + 63) / 64 * 8;
	CLEANUP_CLOSE int fd = memfd_create("mapped", MFD_CLOEXEC);
	CLEANUP_FREE uint64_t *set = calloc(1, bytes);
	bool all = false;
	int rc = fd < 0 ? -errno : set ? 0 : -ENOMEM;

	for (unsigned i = 0; rc == 0 && !all && i < LOOKS; i++) {
		if (i)
			usleep(NAP_US);
		rc = look(table, mem, set, &all);
	}
	if (rc == 0)
		rc = io_write_full(fd, set, bytes);
	return rc < 0 ? error_errno(err, rc, "cannot look which memory is mapped") : take_fd(&fd);
}
