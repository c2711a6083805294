/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_TREE_NODESET_H
#define WISP_TREE_NODESET_H

/* Sets of places in a node list, as people and messages write them: "0-99,120". Any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define NODESET_PLACES (1u << 20) /* places are below */

struct nodeset_range {
	uint32_t first, last;
};

/* Sorted ranges with gaps between them. Zero is the empty set; free with nodeset_done(). */
struct nodeset {
	struct nodeset_range *range;
	size_t n, room;
};

void nodeset_done(struct nodeset *set);

/* first <= last. Return 0 or -ENOMEM, and then the set is as it was. */
int nodeset_add(struct nodeset *set, uint32_t first, uint32_t last);
int nodeset_remove(struct nodeset *set, uint32_t first, uint32_t last);
int nodeset_merge(struct nodeset *set, const struct nodeset *other);
int nodeset_subtract(struct nodeset *set, const struct nodeset *other);

/* What of set is in first to last, as a new set. */
int nodeset_slice(const struct nodeset *set, uint32_t first, uint32_t last, struct nodeset *ret);

bool nodeset_has(const struct nodeset *set, uint32_t place);
/* All of other is in set. */
bool nodeset_contains(const struct nodeset *set, const struct nodeset *other);
uint32_t nodeset_count(const struct nodeset *set);

/*
 * Places and ranges in any order, "" is none; all below NODESET_PLACES. 0 and a new set, -EINVAL,
 * -ERANGE or -ENOMEM with the reason, and *ret as it was.
 */
int nodeset_parse(const char *text, struct nodeset *ret, struct error *err);

/* The caller frees it; NULL: out of memory. */
char *nodeset_format(const struct nodeset *set);

#endif
