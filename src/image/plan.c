/* SPDX-License-Identifier: Apache-2.0 */
/* A forest over a list of nodes, whose roots have the image. */

#include "image/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"

/* First those that have it. */
static void order(const bool *has, struct image_plan *plan)
{
	size_t next = 0;

	for (unsigned lacking = 0; lacking < 2; lacking++) {
		for (size_t i = 0; i < plan->n; i++) {
			if (has[i] == (bool)lacking)
				continue;
			plan->node_at[next] = i;
			plan->position_of[i] = next++;
		}
		if (!lacking)
			plan->roots = next;
	}
}

int image_plan_make(const bool *has, size_t n, size_t fan, struct image_plan *ret,
		    struct error *err)
{
	struct image_plan plan = {.n = n, .fan = fan};

	if (!fan)
		return error_set(err, -EINVAL, "a fan-out of 0 reaches nobody");
	plan.node_at = calloc(n + 1, sizeof(*plan.node_at));
	plan.position_of = calloc(n + 1, sizeof(*plan.position_of));
	if (!plan.node_at || !plan.position_of) {
		image_plan_done(&plan);
		return error_set(err, -ENOMEM, "out of memory");
	}
	order(has, &plan);
	if (n && !plan.roots) {
		image_plan_done(&plan);
		return error_set(err, -ENODATA, "no node has the image");
	}
	*ret = plan;
	return 0;
}

void image_plan_done(struct image_plan *plan)
{
	free(plan->node_at);
	free(plan->position_of);
	*plan = (struct image_plan){0};
}

size_t image_plan_sources(const struct image_plan *plan, size_t node, size_t *ret, size_t max)
{
	size_t position = plan->position_of[node], n = 0;

	if (position < plan->roots)
		return 0;
	do {
		position = (position - plan->roots) / plan->fan;
		if (n++ < max)
			ret[n - 1] = plan->node_at[position];
	} while (position >= plan->roots);
	/* The others, each node beginning behind its own root so that they share the load. */
	for (size_t i = 1; i < plan->roots; i++)
		if (n++ < max)
			ret[n - 1] = plan->node_at[(position + i) % plan->roots];
	return n;
}
