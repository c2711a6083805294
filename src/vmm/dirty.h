/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_DIRTY_H
#define WISP_VMM_DIRTY_H

/*
 * Which pages of guest RAM were written: KVM's log of the vCPUs' writes, vhost's log, and the marks
 * of this process (memory_mark_dirty()) come together in a bitmap that another process shares.
 * Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct vm;

#define DIRTY_PAGE 4096ULL

/*
 * Starts tracking into the bitmap in memfd fd (stays the caller's): a bit for each 4 KiB of the
 * memfd of guest RAM, in little-endian 64-bit words. At first every page counts as written.
 * owner tells whose it is. -EBUSY while somebody tracks, -EINVAL when fd cannot hold it. A log
 * that was kept ends.
 */
int dirty_start(struct vm *vm, int fd, const void *owner, struct error *err);

/*
 * Moves what was written in pages [first, first + pages) into the bitmap; from here on writes
 * there are seen again. Both are multiples of 64, or pages reaches the end of RAM. The number of
 * bits that were not set before, or -errno. The VM may run.
 */
int64_t dirty_collect(struct vm *vm, uint64_t first, uint64_t pages, struct error *err);

/* The whole RAM, in pages. */
uint64_t dirty_pages(const struct vm *vm);

/* Ends it; nothing is left of its cost. Idempotent. */
void dirty_stop(struct vm *vm);

/*
 * Keeping: tracking goes on without an owner, for whoever comes with the same tag. dirty_take()
 * makes it owner's and returns the bitmap's descriptor, which stays ours; -ENOENT when none is
 * kept, and -ESTALE when it has another tag: it has ended then, as it is of use to nobody.
 */
int dirty_keep(struct vm *vm, const void *owner, const char *tag, struct error *err);
int dirty_take(struct vm *vm, const void *owner, const char *tag, struct error *err);

/* Tracking belongs to this owner. */
bool dirty_owned_by(const struct vm *vm, const void *owner);

/*
 * The log for vhost (bit for each 4 KiB of guest physical addresses) and its bytes; NULL while
 * nothing is tracked.
 */
void *dirty_vhost_log(const struct vm *vm, uint64_t *size);

#endif
