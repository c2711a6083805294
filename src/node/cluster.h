/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_CLUSTER_H
#define WISP_NODE_CLUSTER_H

/*
 * What the store has of a cluster beside its resources (node/alloc.h): what it is, its network, how
 * far it has come. One thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "node/lease.h"

struct alloc;
struct error;
struct store;

struct cluster_state {
	unsigned user;
	char session[LEASE_SESSION]; /* empty: none */
	bool made, ending, running;
};

/* -ENOENT: nothing of it is here. */
int cluster_read(struct store *s, const char *cluster, struct cluster_state *ret,
		 struct error *err);

/*
 * What was reserved: its closed environment, the digest of its image (NULL: any), the VMs ("name",
 * "address" or none), and how often it has to be saved (seconds; 0: nobody says).
 */
int cluster_keep(struct store *s, const char *cluster, const json_t *environment, const char *image,
		 const json_t *vms, int64_t save_every, struct error *err);

/*
 * Whether a reference to an image (NULL: there is none) is to what was reserved, by its digest. 0
 * or -EPERM.
 */
int cluster_check_image(struct store *s, const char *cluster, const char *reference,
			struct error *err);

/* What cluster_keep() noted: a new reference. *ret NULL: there is no such cluster. */
int cluster_environment(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* -EEXIST: what is here of the cluster was reserved for another environment. */
int cluster_check_environment(struct store *s, const char *cluster, const json_t *environment,
			      struct error *err);

/* From now on it has to be ended before it is released; its end has begun. */
int cluster_set_made(struct store *s, const char *cluster, struct error *err);
int cluster_set_ending(struct store *s, const char *cluster, struct error *err);

struct cluster_network {
	uint32_t vni;
	const char *subnet;
	const json_t *nodes;
};

/*
 * Notes its network, which it has not yet. -EEXIST: another cluster of this node has the number.
 * And: it has other nodes; it has none any more.
 */
int cluster_add_network(struct store *s, const char *cluster, const struct cluster_network *net,
			struct error *err);
int cluster_set_nodes(struct store *s, const char *cluster, const json_t *nodes, struct error *err);
int cluster_drop_network(struct store *s, const char *cluster, struct error *err);

/* {"vni", "subnet", "nodes"}, a new object; *ret NULL: it has none. */
int cluster_get_network(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* The identity of a cluster's network: 16 hexadecimal digits, the same on all nodes. */
void cluster_network_id(const char *cluster, uint32_t vni, char ret[17]);

/*
 * Of `setup` (docs/formats/node.md): "cluster", "name", "environment", "grants", "vms", "network"
 * without "made"; a new object. -EAGAIN: its network is not there yet.
 */
int cluster_setup(struct alloc *a, const char *cluster, json_t **ret, struct error *err);

/* {VM: what it was granted} of what alloc_describe() says, a new object. */
json_t *cluster_grants(const json_t *lease);

/*
 * Lists [[cluster, vm, dir, user], ...] of VMs that run; and of those of clusters that something
 * was made of and of which it is not known that they run, with null for dir.
 */
int cluster_running(struct store *s, json_t **ret, struct error *err);
int cluster_unknown(struct store *s, json_t **ret, struct error *err);

/* The names of its VMs that have resources here, a new list; of those that run. */
int cluster_vms(struct store *s, const char *cluster, json_t **ret, struct error *err);
int cluster_vms_running(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* The PCI addresses of the devices that its VMs have here, a new list. */
int cluster_devices(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* The names of those VMs that have resources here, and of those that ran and have ended. */
int cluster_all_vms(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* The VMs that have resources here with their addresses: [{"name", "address" or none}]. */
int cluster_addresses(struct store *s, const char *cluster, json_t **ret, struct error *err);

/* A VM runs, with that state directory. */
int cluster_set_dir(struct store *s, const char *cluster, const char *vm, const char *dir,
		    struct error *err);

/* A checkpoint of all its VMs here has been made, or the first of them is to run. */
int cluster_set_saved(struct store *s, const char *cluster, int64_t now, struct error *err);

/* Clusters of which something was made: a list of their IDs. */
int cluster_all_made(struct store *s, json_t **ret, struct error *err);

/*
 * Those of them whose end has begun, or is due by now, {ID: why}: nobody has come back, their
 * walltime and this grace are over (seconds), or a checkpoint is long overdue: two intervals of
 * which the first is the job's and the second the checkpoint's, and CLUSTER_SAVE_GRACE.
 */
#define CLUSTER_SAVE_GRACE 900 /* seconds */
int cluster_due(struct store *s, int64_t now, unsigned grace, json_t **ret, struct error *err);

#endif
