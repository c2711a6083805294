/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_DAEMON_CLUSTER_H
#define WISP_NODE_DAEMON_CLUSTER_H

/*
 * The clusters of which something was made on this node: processes, a network, a control group. For
 * the files of the daemon that do so. What is here can be lost at any moment: the next daemon makes
 * it anew from the database and what it finds.
 */

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "node/claim.h"
#include "node/daemon.h"
#include "node/helper-call.h"

struct cluster_end;
struct network_making;
struct part;

struct cluster {
	struct cluster *next;
	struct daemon *d;
	char id[CLAIM_NAME];
	uid_t user;
	bool grouped;	   /* it has a control group */
	json_t *ready;	   /* {VM: times} of those whose agents have answered; NULL: none */
	struct part *part; /* daemon-part.c; NULL: there was never one */
	struct network_making *making; /* daemon-network.c: its network is being made */
	struct cluster_end *end;       /* daemon-end.c: it is being ended */
};

/* -------- daemon-cluster.c -------- */

/*
 * The cluster of a request, whose asker may ask that. -EINVAL, -ENOENT, -EPERM, -ESHUTDOWN: it is
 * being ended.
 */
int cluster_of_request(struct daemon *d, const struct asker *who, const json_t *request,
		       struct cluster **ret, struct error *err);
/* The cluster, noted in the database as one that has to be ended. */
int cluster_get(struct daemon *d, const char *id, struct cluster **ret, struct error *err);
/* NULL: there is none here, as far as this daemon knows. */
struct cluster *cluster_known(const struct daemon *d, const char *id);
void cluster_destroy(struct cluster *c);
void clusters_done(struct daemon *d);

/* Where a user's run folder is; NULL: as the user's own programs find it. A new string. */
char *cluster_run_folder(const struct daemon *d, uid_t user);
/* The PCI addresses of its devices, a new list; NULL: they are not known. */
json_t *cluster_all_devices(const struct cluster *c);
/* A job of the helper in which it becomes the cluster's user in a part of its group. */
json_t *cluster_become(const struct cluster *c, const char *part, json_t *argv);
/* The file of its network, a new string; NULL: it is not root's. */
char *cluster_network_file(const struct cluster *c);
/* Says something of it to its session; takes the event. */
void cluster_event(struct cluster *c, json_t *event);
/* Takes the event; for all of them. */
void clusters_tell(struct daemon *d, json_t *event);

/* -------- daemon-group.c -------- */

/* The machine has control groups that this daemon may make. */
bool groups_usable(const struct daemon *d);
/*
 * Makes its control group, or sets it anew; nothing where the machine has none. -EBUSY: what it is
 * to have alone it does not have alone; -ENOSPC: it has no VM here, and others have all CPUs.
 */
int group_make(struct cluster *c, struct error *err);
/* Who owns which CPUs has changed. */
void groups_refresh(struct daemon *d);
/* After a start: groups of clusters that had more when they were made have what they have now. */
int groups_recover(struct daemon *d, struct error *err);
/* A VM that runs shares its cores with no other. */
void group_vm_started(struct cluster *c, const char *vm);
/* What ran there is killed. */
void group_vm_ended(struct cluster *c, const char *vm);
void groups_gone(struct daemon *d);

/* -------- daemon-part.c -------- */

/*
 * Asks the cluster's part, which is started if need be; the request stays the caller's and its id
 * does not matter. fn comes once, not out of this, also when the part dies.
 */
int part_ask(struct cluster *c, const json_t *request, part_fn *fn, void *arg, struct error *err);
/* It hears which VMs there are from now on; one that is not there will. Accepts NULL. */
void part_tell_vms(struct cluster *c);
/* A stream of its connection (daemon.h). */
part_connect_fn part_connect;
/* Starts it where it is not there; whether it answers. */
int part_start(struct cluster *c, struct error *err);
bool part_is_there(const struct cluster *c);
/* Ends it, whatever it does. VMs run on. */
void part_end(struct cluster *c);
void part_destroy(struct cluster *c);

/* -------- daemon-network.c -------- */

void network_forget(struct cluster *c);

/* Gives up what is under way: the step that it waits for has failed. */
void network_give_up(struct cluster *c);

/* -------- daemon-life.c -------- */

/* A request of the part has been done, with that answer. */
void life_done(struct cluster *c, const json_t *request, const json_t *value);
/* Of these VMs what they had comes back. -EBUSY: one of them runs; nothing has changed then. */
int life_release(struct cluster *c, const json_t *names, struct error *err);
/* The part says something by itself. */
void life_event(struct cluster *c, const json_t *event);

/* -------- daemon-account.c -------- */

/*
 * Has its part tell what its VMMs count. Once that is on record then (which may be NULL) comes with
 * the part's answer, as of part_ask().
 */
int usage_ask(struct cluster *c, part_fn *then, void *arg, struct error *err);

/* -------- daemon-end.c -------- */

/* Ends it and gives back what it has. reply: who wants to know, or NULL. */
void end_begin(struct cluster *c, struct reply *reply);
/* Nothing is being made any more for which it waited. */
void end_go_on(struct cluster *c);
void end_destroy(struct cluster *c);

#endif
