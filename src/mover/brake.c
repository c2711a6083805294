/* SPDX-License-Identifier: Apache-2.0 */
/* Which vCPUs are slowed down, and by how much. */

#include "mover/brake.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define FIRST 20u
#define STEP 10u
#define MOST 90u

int brake_init(struct brake *b, struct machine *vmm, unsigned n, struct error *err)
{
	*b = (struct brake){.vmm = vmm, .n = n ? n : 1};
	b->percent = calloc(b->n, sizeof(*b->percent));
	b->faults = calloc(b->n, sizeof(*b->faults));
	b->last = calloc(b->n, sizeof(*b->last));
	if (b->percent && b->faults && b->last)
		return 0;
	brake_done(b);
	return error_set(err, -ENOMEM, "out of memory");
}

void brake_done(struct brake *b)
{
	free(b->percent);
	free(b->faults);
	free(b->last);
	*b = (struct brake){0};
}

void brake_look(struct brake *b)
{
	/* faults is scratch until the difference is known. */
	b->known = b->vmm->ops->faults(b->vmm, b->n, b->faults, NULL) == 0;
	for (unsigned i = 0; b->known && i < b->n; i++) {
		uint64_t now = b->faults[i];

		b->faults[i] = now - b->last[i];
		b->last[i] = now;
	}
}

/*
 * A vCPU counts as one that writes with half of the share that each had if all wrote alike. Where
 * faults do not explain even half of the pages, all do: the CPU logs writes without a fault, or
 * devices write for them.
 */
static bool writes(const struct brake *b, unsigned i, uint64_t sum, uint64_t pages)
{
	if (!b->known || sum < pages / 2)
		return true;
	return b->faults[i] >= sum / (2 * (uint64_t)b->n);
}

int brake_more(struct brake *b, uint64_t pages, struct error *err)
{
	bool any = false;
	uint64_t sum = 0;

	for (unsigned i = 0; i < b->n; i++)
		sum += b->faults[i];
	for (unsigned i = 0; i < b->n; i++) {
		if (!writes(b, i, sum, pages) || b->percent[i] >= MOST)
			continue;
		b->percent[i] = (uint8_t)(b->percent[i] ? b->percent[i] + STEP : FIRST);
		any = true;
	}
	if (!any)
		return error_set(err, -EAGAIN, "the vCPUs that write cannot be slower");
	return b->vmm->ops->throttle(b->vmm, b->n, b->percent, err);
}

unsigned brake_most(const struct brake *b)
{
	unsigned most = 0;

	for (unsigned i = 0; i < b->n; i++)
		if (b->percent[i] > most)
			most = b->percent[i];
	return most;
}

void brake_release(struct brake *b)
{
	CLEANUP_FREE uint8_t *none = brake_most(b) ? calloc(b->n, 1) : NULL;

	if (none)
		b->vmm->ops->throttle(b->vmm, b->n, none, NULL);
}
