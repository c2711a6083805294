/* SPDX-License-Identifier: Apache-2.0 */
/* What hwloc lacks: huge pages that are free, and virtual functions of PCI devices. */

#include "node/topology-files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/tree.h"
#include "node/topology.h"

struct pages_reader {
	const char *root;
	struct topo_node *node;
};

static uint64_t file_number(const char *root, const char *dir, const char *name)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, name);

	return path ? tree_number(root, path) : 0;
}

/* path: .../hugepages-2048kB */
static void read_size(const char *path, void *arg)
{
	const struct pages_reader *reader = arg;
	struct topo_node *node = reader->node;
	const char *size = strrchr(path, '-');
	struct topo_pages *pages = &node->pages[node->nsizes];

	if (!size || node->nsizes == TOPO_SIZES)
		return;
	pages->size = strtoull(size + 1, NULL, 10) << 10;
	pages->total = file_number(reader->root, path, "nr_hugepages");
	pages->free = file_number(reader->root, path, "free_hugepages");
	if (pages->size)
		node->nsizes++;
}

static int by_size(const void *a, const void *b)
{
	const struct topo_pages *x = a, *y = b;

	return (x->size > y->size) - (x->size < y->size);
}

void topology_files_pages(struct topology *t)
{
	for (unsigned i = 0; i < t->nnodes; i++) {
		struct pages_reader reader = {.root = t->root, .node = &t->nodes[i]};
		CLEANUP_FREE char *pattern = io_format(
			"/sys/devices/system/node/node%u/hugepages/hugepages-*kB", t->nodes[i].id);

		t->nodes[i].nsizes = 0;
		if (pattern)
			tree_each(t->root, pattern, read_size, &reader);
		/* A kernel without NUMA has them for all of the machine. */
		if (!t->nodes[i].nsizes && t->nnodes == 1)
			tree_each(t->root, "/sys/kernel/mm/hugepages/hugepages-*kB", read_size,
				  &reader);
		qsort(t->nodes[i].pages, t->nodes[i].nsizes, sizeof(struct topo_pages), by_size);
	}
}

struct device_reader {
	const struct topology *t;
	struct topo_device *devices;
	unsigned n, room;
};

static long device_number(const struct device_reader *reader, const char *dir, const char *name,
			  int base, long otherwise)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, name);
	char line[64];

	if (!path || !tree_line(reader->t->root, path, line, sizeof(line)))
		return otherwise;
	return strtol(line, NULL, base);
}

static bool device_link(const struct device_reader *reader, const char *dir, const char *name,
			char *buf, size_t size)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, name);

	return path && tree_link(reader->t->root, path, buf, size);
}

static void read_device(const char *path, void *arg)
{
	struct device_reader *reader = arg;
	struct topo_device *d = &reader->devices[reader->n];
	long node = device_number(reader, path, "numa_node", 10, -1);
	char group[16];

	if (reader->n == reader->room)
		return;
	*d = (struct topo_device){.group = -1, .node = -1};
	if (snprintf(d->address, sizeof(d->address), "%s", strrchr(path, '/') + 1) >=
	    (int)sizeof(d->address))
		return;
	d->vendor = device_number(reader, path, "vendor", 16, 0);
	d->device = device_number(reader, path, "device", 16, 0);
	d->class = device_number(reader, path, "class", 16, 0);
	d->max_functions = device_number(reader, path, "sriov_totalvfs", 10, 0);
	d->functions = device_number(reader, path, "sriov_numvfs", 10, 0);
	device_link(reader, path, "physfn", d->function_of, sizeof(d->function_of));
	device_link(reader, path, "driver", d->driver, sizeof(d->driver));
	if (device_link(reader, path, "iommu_group", group, sizeof(group)))
		d->group = atoi(group);
	if (node >= 0)
		d->node = topology_node(reader->t, node);
	reader->n++;
}

int topology_files_devices(struct topology *t)
{
	static const char pattern[] = "/sys/bus/pci/devices/*";
	struct device_reader reader = {.t = t, .room = tree_count(t->root, pattern)};

	reader.devices = calloc(reader.room + 1, sizeof(*reader.devices));
	if (!reader.devices)
		return -ENOMEM;
	tree_each(t->root, pattern, read_device,
		  &reader); /* sorted: their numbers have one width */
	free(t->devices);
	t->devices = reader.devices;
	t->ndevices = reader.n;
	return 0;
}
