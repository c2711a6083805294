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
 * owner tells whose it is. -EBUSY while somebody tracks, -EINVAL when fd cannot hold it.
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

/* Tracking belongs to this owner. */
bool dirty_owned_by(const struct vm *vm, const void *owner);

/*
 * The log for vhost (bit for each 4 KiB of guest physical addresses) and its bytes; NULL while
 * nothing is tracked.
 */
void *dirty_vhost_log(const struct vm *vm, uint64_t *size);

#endif
