/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_OBSTACLE_H
#define WISP_MOVER_MIGRATE_OBSTACLE_H

/*
 * What keeps a VM from moving: all of it, before a byte moves. An obstacle is an object of texts:
 * what, source (what is there), target, fix (what to do about it).
 */

#include <jansson.h>
#include <stdint.h>

#include "mover/machine.h"

/* What the VM at the source (machine_ops.describe) has that cannot leave: a new array. */
json_t *obstacle_at_source(const json_t *vm);

/*
 * What the VM at the target lacks, with free bytes of memory left on its machine: a new array.
 * source is what a peer says, and may be anything.
 */
json_t *obstacle_at_target(const json_t *source, const json_t *target, uint64_t free_bytes);

/* Memory that this machine can still give away, bytes; UINT64_MAX when it does not say. */
uint64_t obstacle_free_memory(void);

/* One line for people of an obstacle that may come from a peer; for free(). NULL: no memory. */
char *obstacle_text(const json_t *obstacle);

#endif
