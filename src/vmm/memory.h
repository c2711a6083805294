/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_MEMORY_H
#define WISP_VMM_MEMORY_H

/*
 * Guest RAM: one file (ram-file.h), mapped once, seen by the guest as one region below the PCI hole
 * and one from 4 GiB up. The only way for device code to touch guest memory: every access is
 * checked against the regions, and every write of the VMM itself is marked in the dirty
 * bitmap while one is installed (KVM's dirty log sees the vCPUs' writes alone).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

#define MEMORY_LOW_MAX 0xc0000000ULL /* RAM below 4 GiB ends here; the PCI hole begins */
#define MEMORY_HIGH_START 0x100000000ULL

struct memory_region {
	uint64_t gpa;	 /* guest physical address */
	uint64_t size;	 /* bytes */
	uint64_t offset; /* in the file */
	uint8_t *host;
};

struct memory {
	int fd; /* of the file, owned */
	uint64_t size;
	uint64_t page_size;
	struct memory_region region[2];
	unsigned nregions;
	/*
	 * One bit per 4 KiB of the file, set by memory_mark_dirty(); NULL while nobody tracks.
	 * Owned by whoever installed it (dirty.c), with the VM's lock held, as those who mark.
	 */
	_Atomic uint64_t *dirty;
};

/*
 * Creates and maps guest RAM. page_size is 4096, 2 MiB or 1 GiB; with prefault (always for
 * huge pages) every page is populated now. Fails with numbers in err (-ENOMEM) when the
 * machine does not have the memory; a VM that started never sees SIGBUS.
 */
int memory_create(struct memory *mem, uint64_t size, uint64_t page_size, bool prefault,
		  struct error *err);
void memory_destroy(struct memory *mem);

/* Whether the kernel may make huge pages of what has small ones; it may, until this is asked. */
void memory_want_huge(const struct memory *mem, bool want);

/*
 * Host address of [gpa, gpa + len), NULL unless all of it is inside one region. len 0 is
 * an address of one byte. Whoever writes there calls memory_mark_dirty(). Any thread.
 */
void *memory_at(const struct memory *mem, uint64_t gpa, uint64_t len);

/* Copies in or out. 0 or -EFAULT (nothing was copied). memory_write marks dirty. Any thread. */
int memory_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len);
int memory_write(struct memory *mem, uint64_t gpa, const void *buf, uint64_t len);

/* Tells that the VMM wrote [gpa, gpa + len), a checked range. Any thread. */
void memory_mark_dirty_slow(struct memory *mem, uint64_t gpa, uint64_t len);
static inline void memory_mark_dirty(struct memory *mem, uint64_t gpa, uint64_t len)
{
	if (__builtin_expect(mem->dirty != NULL, 0))
		memory_mark_dirty_slow(mem, gpa, len);
}

#endif
