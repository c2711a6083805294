/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ALLOC_H
#define WISP_NODE_ALLOC_H

/*
 * Who may have which cores, memory and devices of this node. Every change is one transaction of
 * the store, so it is whole or has not happened, whatever dies. One thread.
 *
 * Dedicated VMs own whole cores. Shared VMs own none: all run on those that nobody owns
 * (alloc_shared()), of which at least as many threads stay as the largest of them has vCPUs.
 */

#include <jansson.h>
#include <sched.h>
#include <stdint.h>

struct claim;
struct error;
struct store;
struct topology;

struct alloc {
	struct store *store;
	struct topology *topology; /* refreshed by alloc_claim() */
	cpu_set_t host;		   /* a core with one of these CPUs is kept for the host */
	uint64_t host_memory;	   /* bytes of each NUMA node that are */
};

/*
 * Meets a claim whole: *ret is a new object as of alloc_describe(). Times are seconds since 1970; a
 * reservation that is not confirmed ends at until. -EBUSY: others have what is missing, -E2BIG:
 * this node never has it, -EEXIST: one of the VMs has resources here already (others of its
 * cluster may: these are more of it), or the cluster is another user's. *missing is then a new
 * list that says what, how much and who holds it (docs/formats/node.md, Claims); it stays NULL
 * otherwise.
 */
int alloc_claim(struct alloc *a, const struct claim *claim, int64_t now, int64_t until,
		json_t **ret, json_t **missing, struct error *err);

/* The reservation is a lease that has no end. -ENOENT: there is none. */
int alloc_confirm(struct alloc *a, const char *cluster, int64_t now, struct error *err);

/* Everything of a cluster, or of one of its VMs, comes back; 0 also when nothing was there. */
int alloc_release(struct alloc *a, const char *cluster, int64_t now, struct error *err);
int alloc_release_vm(struct alloc *a, const char *cluster, const char *vm, int64_t now,
		     struct error *err);
/*
 * What a VM that has ended had comes back; unless it has devices: all of that stays the cluster's,
 * whose user has their files until its end.
 */
int alloc_vm_ended(struct alloc *a, const char *cluster, const char *vm, int64_t now,
		   struct error *err);

/*
 * Releases reservations whose time is over and of which nothing was made (node/cluster.h); returns
 * how many, or -errno.
 */
int alloc_expire(struct alloc *a, int64_t now, struct error *err);

/* The CPUs on which shared VMs run now. */
int alloc_shared(struct alloc *a, cpu_set_t *ret, struct error *err);

/*
 * What a cluster has: "cluster", "user", "state", "since", "until", "vms": "name", "dedicated",
 * "vcpus", "cpus" (a list: "0-3"), "nodes": "node", "memory"; "page-size", "devices". -ENOENT:
 * nothing.
 */
int alloc_describe(struct alloc *a, const char *cluster, json_t **ret, struct error *err);

#endif
