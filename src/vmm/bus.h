/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_BUS_H
#define WISP_VMM_BUS_H

/*
 * Address decoding for port I/O and MMIO. A device sees offsets into its range, never
 * addresses. Reads that nobody claims give all ones, writes vanish. All calls are made with
 * the VM's lock held (vCPU threads take it around the dispatch of an exit).
 */

#include <stdint.h>

struct error;

struct bus_ops {
	/* data is len bytes (1, 2, 4 or 8), little-endian; offset + len is inside the range. */
	void (*read)(void *dev, uint64_t offset, void *data, unsigned len);
	void (*write)(void *dev, uint64_t offset, const void *data, unsigned len);
};

struct bus_range {
	uint64_t base, size;
	const struct bus_ops *ops;
	void *dev;
	const char *name; /* for logs and errors */
};

/* Sorted by base; no two overlap. */
struct bus {
	struct bus_range *range;
	unsigned count, room;
};

/* Claims a range. -EEXIST (err names the holder) when it overlaps, -EINVAL when it wraps. */
int bus_add(struct bus *bus, const struct bus_range *range, struct error *err);
/* Gives a range back; nothing happens if there is none at base. */
void bus_remove(struct bus *bus, uint64_t base);
void bus_done(struct bus *bus);

void bus_read(const struct bus *bus, uint64_t addr, void *data, unsigned len);
void bus_write(const struct bus *bus, uint64_t addr, const void *data, unsigned len);

#endif
