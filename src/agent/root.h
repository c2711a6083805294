/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_ROOT_H
#define WISP_AGENT_ROOT_H

/* The root file system: read-only, a tmpfs over it, the initrd gone. Process 1 only. */

#include <stddef.h>

struct error;
struct log;

/* The file system type by its superblock (at least 2 KiB from the start), NULL if unknown. */
const char *root_detect(const void *data, size_t size);

/*
 * source: a block device or "virtiofs:TAG"; waited for. Afterwards / is the overlay; /dev, /proc
 * and /sys have moved along.
 */
int root_switch(const struct log *log, const char *source, struct error *err);

/*
 * Calls fn until it returns something else than -EAGAIN, after each device event of the
 * kernel; -ETIMEDOUT after half a minute.
 */
int wait_for_device(int (*fn)(void *arg, struct error *err), void *arg, struct error *err);

#endif
