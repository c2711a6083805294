/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_MAPPED_H
#define WISP_VMM_MAPPED_H

struct error;
struct memory;

/*
 * Which pages of guest memory are mapped, while nobody maps or unmaps any: a bit for each page of
 * its page size, in a new memfd (the caller's), or -errno. Takes 40 ms when some are not. table:
 * /proc/self/pagemap. Any thread; touches no guest memory.
 */
int mapped_pages(int table, const struct memory *mem, struct error *err);

#endif
