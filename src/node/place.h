/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_PLACE_H
#define WISP_NODE_PLACE_H

/*
 * Where the VMs of a claim go: a search over what is free, that changes nothing and depends on
 * nothing else, so the same question has the same answer. Any thread.
 */

#include "node/claim.h"
#include "node/topology.h"

/* Hardware threads, in so many cores. */
struct place_room {
	unsigned threads, cores;
};

/* What is free. Arrays have the lengths of the topology's. */
struct place_free {
	const struct topology *t;
	bool *cores;			   /* nobody's own, and not kept for the host */
	uint64_t (*pages)[TOPO_SIZES + 1]; /* of each node: base pages, then as its huge sizes */
	int *devices; /* owner: PLACE_FREE, PLACE_TAKEN or, in a search, the VM's index */
	/* What shared VMs have to be left: of each node, and in all. */
	struct place_room *kept;
	struct place_room kept_all;
};

#define PLACE_FREE (-1)
#define PLACE_TAKEN (-2)

struct place_vm {
	bool *cores;	 /* its own; none when it is shared */
	uint64_t *bytes; /* of each node */
	unsigned nnodes; /* of which it has memory */
};

struct placement {
	unsigned nvms;
	struct place_vm *vms; /* as in the claim */
	int *devices;	      /* of each device the VM that gets it, or PLACE_FREE, PLACE_TAKEN */
};

/*
 * A new placement. -EBUSY: there is none; -ELOOP: none was found in 10,000 steps; -ENODEV: a
 * device is not to be had.
 */
int place(const struct place_free *have, const struct claim *claim, struct placement **ret);
void placement_destroy(struct placement *p);

int place_free_init(struct place_free *f, const struct topology *t);
void place_free_done(struct place_free *f);

/* The index of a page size in pages[node]; -1: the node has none such. */
int place_pages(const struct topology *t, unsigned node, uint64_t size);

/* Whether a device is of the kind that is asked for by its text in a claim. */
bool place_device_matches(const struct topo_device *d, const char *wanted);

/*
 * Whether two devices can only have one owner: they are one, of one IOMMU group (they reach each
 * other's memory), or the one is a function of the other, which rules it.
 */
bool place_device_tied(const struct topo_device *a, const struct topo_device *b);

/* The devices of a claim alone: of each its VM into owner. -ENODEV: *vm does not get *wanted
 * (indices). */
int place_devices(const struct topology *t, const struct claim *claim, int *owner, unsigned *vm,
		  unsigned *wanted);

/* The free cores of a node, and their threads; of all with node -1. */
struct place_room place_room(const struct place_free *f, int node);

/* What has to be left for a shared VM of so many vCPUs in addition to what is kept. */
void place_keep(struct place_room *kept, unsigned cpus, bool cores);

/* Whether there is as much as need. */
bool place_has(struct place_room have, struct place_room need);

#endif
