/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of checkpoints and restores in words. */

#include "mover/tell.h"

#include <inttypes.h>
#include <stdio.h>

static uint64_t number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

static double seconds(const json_t *object, const char *name)
{
	return (double)number(object, name) / 1e9;
}

static void tell_copy(const char *id, const json_t *disk)
{
	const char *how = json_string_value(json_object_get(disk, "how"));
	uint64_t by_vm = number(disk, "vm_bytes"), bytes = number(disk, "bytes") + by_vm;

	printf("disk %s: %s", id, how ? how : "?");
	if (bytes)
		printf(" %" PRIu64 " MiB in %.2f s", bytes >> 20, seconds(disk, "ns"));
	if (by_vm)
		printf(", %" PRIu64 " KiB of it before the VM changed them", by_vm >> 10);
	putchar('\n');
}

void tell_checkpoint(const json_t *report)
{
	json_t *disks = json_object_get(report, "disks"), *disk;
	uint64_t parent = number(report, "parent"), rounds = number(report, "rounds");
	const char *id;

	printf("epoch %" PRIu64, number(report, "epoch"));
	if (parent)
		printf(" on epoch %" PRIu64, parent);
	printf(": %" PRIu64 " MiB written in %.2f s and %" PRIu64 " round%s (%" PRIu64
	       " pages, %" PRIu64 " zero)",
	       number(report, "bytes") >> 20, seconds(report, "total_ns"), rounds,
	       rounds == 1 ? "" : "s", number(report, "pages"), number(report, "zero_pages"));
	if (number(report, "pause_ns"))
		printf(", paused for %.1f ms", seconds(report, "pause_ns") * 1e3);
	putchar('\n');
	json_object_foreach (disks, id, disk)
		tell_copy(id, disk);
}

void tell_restore(const json_t *report)
{
	json_t *disks = json_object_get(report, "disks"), *disk;
	const char *id;

	printf("epoch %" PRIu64, number(report, "epoch"));
	if (number(report, "bytes"))
		printf(": %" PRIu64 " MiB read", number(report, "bytes") >> 20);
	if (json_object_get(report, "memory_ns"))
		printf(", ready after %.2f s, memory there after %.2f s",
		       seconds(report, "ready_ns"), seconds(report, "memory_ns"));
	putchar('\n');
	json_object_foreach (disks, id, disk)
		printf("disk %s: %s\n", id, json_string_value(disk));
}

void tell_warnings(const json_t *report)
{
	json_t *before = json_object_get(report, "restored_before");
	json_t *disks = json_object_get(report, "disks"), *disk;
	const char *id;

	if (before)
		fprintf(stderr,
			"wisp-mover restore: this epoch was restored before, %" PRIu64
			" times, last on %s: if that VM still runs, both believe to be the same\n",
			number(before, "times"),
			json_string_value(json_object_get(before, "last")));
	json_object_foreach (disks, id, disk)
		if (json_is_true(json_object_get(disk, "parent_damaged")))
			fprintf(stderr,
				"wisp-mover checkpoint: the copy of disk %s in the parent epoch is "
				"damaged; this epoch has one of its own\n",
				id);
}
