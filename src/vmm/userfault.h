/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_USERFAULT_H
#define WISP_VMM_USERFAULT_H

/*
 * Faults on guest RAM served by another process: memory that comes later (missing, minor), or
 * that must be copied before it is written (wp). Lock: the VM's.
 */

#include <stdint.h>

struct error;
struct vm;

/* Modes, as bits. */
enum { USERFAULT_MISSING = 1, USERFAULT_MINOR = 2, USERFAULT_WP = 4 };

/*
 * Registers all guest RAM. What happens when connection is hung up before userfault_stop(), with
 * modes that give memory, is userfault_watch_start()'s to say. Writes alone (wp) are let go when
 * the last copy of the userfaultfd is closed. Returns it (the caller's), or -errno.
 */
int userfault_start(struct vm *vm, unsigned modes, int connection, unsigned hold_ms,
		    struct error *err);

/* Ends it: faults are the kernel's again. Idempotent. */
void userfault_stop(struct vm *vm);

#endif
