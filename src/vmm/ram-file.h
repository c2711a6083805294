/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_RAM_FILE_H
#define WISP_VMM_RAM_FILE_H

/* The file whose pages guest RAM is. */

#include <stdint.h>

struct error;

#define RAM_FILE_NAME "guest-ram" /* as /proc/PID/maps shows it */

/*
 * An empty file of size bytes that nobody else can open, for guest RAM of pages of page_size
 * (4096, 2 MiB or 1 GiB; a multiple of it). Pages of 2 MiB and 1 GiB are hugetlbfs's and are taken
 * at once. With 4096 the file is of a tmpfs of its own that hands out transparent huge pages
 * (tmpfs(5), huge=always), whatever shmem_enabled is for memfds; where these are switched off
 * (transparent_hugepage/enabled is "never") or the caller may not mount (CAP_SYS_ADMIN in its user
 * namespace) it is a memfd. Returns the descriptor, the caller's, or -errno.
 */
int ram_file_create(uint64_t size, uint64_t page_size, struct error *err);

#endif
