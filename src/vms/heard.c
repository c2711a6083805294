/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes that are heard of, and which of them are believed. */

#include "vms/heard.h"

#include <string.h>

bool heard_is_node(uint32_t address)
{
	/* Not 0.0.0.0, a group (RFC 5771), or what is reserved above. */
	return address && address >> 28 < 14;
}

static size_t find(const struct heard *h, uint32_t node)
{
	size_t i = 0;

	while (i < h->ngone && h->gone[i] != node)
		i++;
	return i;
}

bool heard_believe(struct heard *h, uint32_t node)
{
	if (!heard_is_node(node) || find(h, node) < h->ngone || h->believed >= HEARD_MAX)
		return false;
	h->believed++;
	return true;
}

static void drop(struct heard *h, size_t at)
{
	memmove(&h->gone[at], &h->gone[at + 1], (--h->ngone - at) * sizeof(h->gone[0]));
}

void heard_unlink(struct heard *h, uint32_t node)
{
	heard_link(h, node);
	if (h->ngone == HEARD_GONE)
		drop(h, 0);
	h->gone[h->ngone++] = node;
}

void heard_link(struct heard *h, uint32_t node)
{
	size_t at = find(h, node);

	if (at < h->ngone)
		drop(h, at);
}
