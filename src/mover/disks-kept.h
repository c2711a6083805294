/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISKS_KEPT_H
#define WISP_MOVER_DISKS_KEPT_H

/* A disk in an epoch. For disks*.c. */

#include <stdbool.h>
#include <stdint.h>

#include "mover/epoch.h"
#include "mover/work.h"

struct error;

#define DISKS_FILE (MANIFEST_DISK_MAX + 1)

/* The file of the disk of a device, in name. */
const char *disks_file(const char *id, char name[DISKS_FILE]);

/* Whether a file of an epoch is that of a disk. */
bool disks_is(const char *name);

struct kept {
	char name[DISKS_FILE];
	const char *sum;      /* that it is to have; the epoch's */
	uint64_t size, bytes; /* bytes: by kept_check(), those that are not zero */
	int fd;		      /* the caller closes it, also after a failure */
};

/* Opens what "files" of the manifest has under this name, and checks its size. */
int kept_open(const struct epoch *epoch, const char *name, const json_t *file, struct kept *ret,
	      struct error *err);

/* Checks its content. -EBADMSG for damage. */
int kept_check(const struct epoch *epoch, struct kept *kept, const struct progress *progress,
	       struct error *err);

#endif
