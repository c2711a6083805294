/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_LAZY_H
#define WISP_MOVER_LAZY_H

/*
 * Lazy restores: a chunk comes when the guest touches it, and all others meanwhile. The VMM's
 * memory is registered with a userfaultfd; what is not there yet is asked for there.
 */

#include <stdint.h>

#include "mover/chain.h"
#include "mover/vmm.h"

struct error;
struct lazy;

/*
 * Begins to serve: from now on the VM may be loaded and run. The memfd of its memory is fresh and
 * not of huge pages. chain, vmm and memfd outlive the object.
 */
int lazy_start(const struct chain *chain, struct vmm *vmm, int memfd, struct lazy **ret,
	       struct error *err);

/*
 * Brings the rest of the memory and lets go of the faults. 0, or -errno: the VM can then only end.
 * *faults, when not NULL, is how often the guest had to wait.
 */
int lazy_finish(struct lazy *lazy, uint64_t *faults, struct error *err);

/* Ends the serving. After lazy_start() without lazy_finish() the VM loses its memory. */
void lazy_destroy(struct lazy *lazy);

#endif
