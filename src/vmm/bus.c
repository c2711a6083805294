/* SPDX-License-Identifier: Apache-2.0 */
/* Address decoding: a sorted array of ranges and a binary search. */

#include "vmm/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"

/* Index of the first range whose end is above addr. */
static unsigned lower_bound(const struct bus *bus, uint64_t addr)
{
	unsigned lo = 0, hi = bus->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (bus->range[mid].base + (bus->range[mid].size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int make_room(struct bus *bus)
{
	unsigned room = bus->room ? bus->room * 2 : 16;
	struct bus_range *bigger;

	if (bus->count < bus->room)
		return 0;
	bigger = realloc(bus->range, room * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	bus->range = bigger;
	bus->room = room;
	return 0;
}

int bus_add(struct bus *bus, const struct bus_range *range, struct error *err)
{
	uint64_t last = range->base + (range->size - 1);
	unsigned at;

	if (!range->size || last < range->base)
		return error_set(err, -EINVAL, "%s: address range at 0x%llx is empty or wraps",
				 range->name, (unsigned long long)range->base);
	at = lower_bound(bus, range->base);
	if (at < bus->count && bus->range[at].base <= last)
		return error_set(err, -EEXIST, "%s: addresses 0x%llx-0x%llx belong to %s",
				 range->name, (unsigned long long)range->base,
				 (unsigned long long)last, bus->range[at].name);
	if (make_room(bus))
		return error_errno(err, -ENOMEM, "%s", range->name);
	memmove(&bus->range[at + 1], &bus->range[at], (bus->count - at) * sizeof(*range));
	bus->range[at] = *range;
	bus->count++;
	return 0;
}

void bus_remove(struct bus *bus, uint64_t base)
{
	unsigned at = lower_bound(bus, base);

	if (at == bus->count || bus->range[at].base != base)
		return;
	bus->count--;
	memmove(&bus->range[at], &bus->range[at + 1], (bus->count - at) * sizeof(*bus->range));
}

void bus_done(struct bus *bus)
{
	free(bus->range);
	*bus = (struct bus){0};
}

/*
 * The range that holds the whole access, or NULL. An access across a page border comes from KVM in
 * two pieces of any length: devices have no registers that such pieces are.
 */
static const struct bus_range *find(const struct bus *bus, uint64_t addr, unsigned len)
{
	unsigned at = lower_bound(bus, addr);
	const struct bus_range *r = &bus->range[at];

	if (len & (len - 1) || at == bus->count || addr < r->base ||
	    len > r->size - (addr - r->base))
		return NULL;
	return r;
}

void bus_read(const struct bus *bus, uint64_t addr, void *data, unsigned len)
{
	const struct bus_range *r = find(bus, addr, len);

	memset(data, 0xff, len);
	if (r)
		r->ops->read(r->dev, addr - r->base, data, len);
}

void bus_write(const struct bus *bus, uint64_t addr, const void *data, unsigned len)
{
	const struct bus_range *r = find(bus, addr, len);

	if (r)
		r->ops->write(r->dev, addr - r->base, data, len);
}
