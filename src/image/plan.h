/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_PLAN_H
#define WISP_IMAGE_PLAN_H

/* Who fetches an image from whom (docs/formats/image-stream.md). Pure; any thread. */

#include <stdbool.h>
#include <stddef.h>

struct error;

#define IMAGE_FAN 2

/* Nodes are named by their places in the caller's list. */
struct image_plan {
	size_t n, roots, fan;
	size_t *node_at;     /* those that have it, then the others, each in the list's order */
	size_t *position_of; /* of each node in that order */
};

/*
 * Makes a plan for n nodes of which has[] have the image; fan >= 1. 0, -ENODATA when there are
 * nodes and none has it, -EINVAL or -ENOMEM. Free with image_plan_done().
 */
int image_plan_make(const bool *has, size_t n, size_t fan, struct image_plan *ret,
		    struct error *err);
void image_plan_done(struct image_plan *plan);

/*
 * The sources of a node, the best first: its parent, then whom that fetches from, and so on up to a
 * root, then the other roots. No source ever waits for one that has it as a source. Fills at most
 * max and returns how many there are: 0 for a node that has the image.
 */
size_t image_plan_sources(const struct image_plan *plan, size_t node, size_t *ret, size_t max);

#endif
