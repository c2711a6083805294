/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_LAZY_H
#define WISP_MOVER_LAZY_H

/*
 * Lazy restores: a chunk comes when the guest touches it, and all others meanwhile. The VMM's
 * memory is registered with a userfaultfd; what is not there yet is asked for there.
 */

#include <jansson.h>

#include "mover/chain.h"
#include "mover/faults.h"
#include "mover/vmm.h"

struct error;
struct lazy;

/*
 * Begins to serve: from now on the VM may be loaded and run. The memfd is that of its memory: what
 * is in it has been brought by a mover before us. Takes faults over; chain and control, the path of
 * the control socket, outlive the object.
 */
int lazy_start(const struct chain *chain, const char *control, struct faults *faults, int memfd,
	       struct lazy **ret, struct error *err);

/*
 * Brings the rest of the memory and lets go of the faults. 0, or -errno: the VM can then only end.
 * *faults is a report (blocktime_report()), the caller's.
 */
int lazy_finish(struct lazy *lazy, struct vmm *vmm, json_t **faults, struct error *err);

/* Ends the serving. After lazy_start() without lazy_finish() the VM waits for another mover. */
void lazy_destroy(struct lazy *lazy);

#endif
