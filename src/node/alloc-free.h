/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ALLOC_FREE_H
#define WISP_NODE_ALLOC_FREE_H

/* What of a node is free, and who holds the rest. For alloc.c alone. */

#include <jansson.h>

#include "node/alloc.h"
#include "node/place.h"

/* Fills f, which the caller ends with place_free_done(); whole: as if nobody had anything. */
int alloc_free(struct alloc *a, bool whole, struct place_free *f, struct error *err);

/*
 * Why a claim cannot be met: a new list in *missing, the same as a sentence in err. Returns -EBUSY
 * or -E2BIG, or another -errno when that could not be found out.
 */
int alloc_refuse(struct alloc *a, const struct claim *claim, const struct place_free *f, int why,
		 json_t **missing, struct error *err);

#endif
