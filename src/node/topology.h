/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_TOPOLOGY_H
#define WISP_NODE_TOPOLOGY_H

/*
 * What a machine is made of, as far as VMs are placed by it: NUMA nodes with their memory and huge
 * pages, cores with their hardware threads, PCI devices. Read once; only the huge pages and devices
 * change while a machine runs (topology_refresh()). Not thread-safe.
 */

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

#define TOPO_THREADS 8 /* of a core, at most */
#define TOPO_SIZES 4   /* page sizes */
#define TOPO_ADDRESS 16
#define TOPO_DRIVER 32

struct topo_pages {
	uint64_t size;	      /* bytes */
	uint64_t total, free; /* pages */
};

struct topo_node {
	unsigned id;	 /* the kernel's number */
	uint64_t memory; /* bytes, huge pages included */
	unsigned nsizes; /* huge page sizes, ascending */
	struct topo_pages pages[TOPO_SIZES];
};

struct topo_core {
	unsigned socket;	     /* the kernel's number */
	unsigned node;		     /* index in nodes */
	unsigned ncpus;		     /* threads that are online and allowed */
	unsigned cpus[TOPO_THREADS]; /* the kernel's numbers, ascending */
};

struct topo_device {
	char address[TOPO_ADDRESS];	/* as in /sys: "0000:81:00.1" */
	char function_of[TOPO_ADDRESS]; /* a virtual function's physical one, else empty */
	char driver[TOPO_DRIVER];	/* it is bound to; empty: none */
	unsigned vendor, device, class;
	int node;			   /* index in nodes; -1: not known */
	int group;			   /* IOMMU group; -1: none */
	unsigned max_functions, functions; /* virtual ones it could have, and has */
};

struct topology {
	struct topo_node *nodes;     /* by their numbers */
	struct topo_core *cores;     /* by node, then by their first thread */
	struct topo_device *devices; /* by address */
	unsigned nnodes, ncores, ndevices;
	unsigned *distance; /* nnodes x nnodes; 10: itself */
	char *root;	    /* NULL: a machine without files */
};

/* Where to look; all NULL: this machine. */
struct topology_source {
	const char *xml;       /* a file that hwloc wrote (lstopo) */
	const char *synthetic; /* or hwloc's words for a machine: "pack:2 core:4 pu:2" */
	const char *root;      /* of /sys; NULL with one of these: there is none */
	const cpu_set_t *
		allowed; /* other CPUs are left out; NULL: those of this thread, or all of a file */
};

/*
 * Reads it into a new topology. -ENODEV: no CPU is left, -E2BIG: more CPUs than a cpu_set_t has.
 */
int topology_read(const struct topology_source *source, struct topology **ret, struct error *err);
void topology_destroy(struct topology *t);

/* Reads the counts of huge pages and the devices again; what cannot be read stays. */
int topology_refresh(struct topology *t, struct error *err);

/* The index of a node, core (by any of its threads) or device; -1: there is none. */
int topology_node(const struct topology *t, unsigned id);
int topology_core(const struct topology *t, unsigned cpu);
int topology_device(const struct topology *t, const char *address);

unsigned topology_distance(const struct topology *t, unsigned from, unsigned to);

#endif
