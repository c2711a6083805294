/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISK_LIVE_H
#define WISP_MOVER_DISK_LIVE_H

/*
 * Copies a disk as it was in a pause, while the VM goes on and writes to it: the VMM copies
 * before what it is about to change (docs/formats/control.md, disk-copy-start). Ends with the
 * connection to the VMM.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "mover/vmm.h"
#include "mover/work.h"

struct error;

struct disk_live {
	const char *id; /* the device's; these are the caller's */
	uint64_t size;
	int from, to; /* the disk, and a new file */
	_Atomic uint8_t *shared;
	uint64_t bytes, vm_bytes; /* copied by us, and by the VMM */
};

/* In a pause: from now on the content of this moment is kept. */
int disk_live_begin(struct disk_live *d, struct vmm *vmm, struct error *err);

/* Copies it all, in a thread of work, to whose done it adds. */
int disk_live_copy(struct disk_live *d, struct vmm *vmm, struct work *work, struct error *err);

void disk_live_done(struct disk_live *d);

#endif
