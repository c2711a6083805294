/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_RESTORED_H
#define WISP_MOVER_RESTORED_H

/*
 * Who restores an epoch twice may have two VMs that believe to be one. A note beside the epoch,
 * DIR/.restored-N, remembers that it was restored; the epoch itself never changes.
 */

#include <stdint.h>

#include "mover/manifest.h"
#include "mover/store.h"

#define RESTORED_DATE 32

/* How often the epoch was restored, 0 when nobody knows; when it was last in last. */
uint64_t restored_before(const struct store *store, const struct manifest *epoch,
			 char last[RESTORED_DATE]);

/* One time more. A folder that cannot be written keeps no note. */
void restored_note(const struct store *store, const struct manifest *epoch);

/* The note goes with its epoch: the number may come again. */
void restored_forget(const struct store *store, uint64_t epoch);

#endif
