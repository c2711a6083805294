/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_COMPARE_H
#define WISP_MOVER_COMPARE_H

/* What changed since a checkpoint, by comparing: nobody had to log the guest's writes since. */

#include <stdint.h>

#include "mover/chain.h"

struct error;

/*
 * Sets the bits of the pages of the memfd (of the chain's size) that are not as in the chain, in
 * a bitmap that begins as zeros. Reads both once, by several threads.
 */
int compare_memory(const struct chain *chain, int memfd, const struct progress *progress,
		   uint64_t *bitmap, struct error *err);

#endif
