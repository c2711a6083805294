/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_VMS_H
#define WISP_VMS_VMS_H

/*
 * The VMs of this user on this machine: starting, finding, describing and stopping them.
 * Everything is found in their state directories and asked from their VMMs, their agents and
 * their networks' keepers; nobody else needs to run. Any thread, but vms_start().
 */

#include <jansson.h>
#include <stdbool.h>

#include "vms/subnet.h"

struct error;

/* Which network, and what it must be if it is there. */
struct vms_network {
	const char *name;
	const struct subnet *subnet; /* NULL: as it is, or the default */
	const char *id;		     /* its identity; NULL: as it is, or a new one */
	bool lent;		     /* somebody else makes it: here it is found or not */
};

/*
 * Starts a VM on a network, and the network if it is not there. spec has what RECORD_CONFIG has
 * but what the keeper adds (docs/design/vm-networks.md). *ret is the complete description, a new
 * reference. The process must be single-threaded. -EBUSY: one of that name runs.
 */
int vms_start(const json_t *spec, const struct vms_network *network, json_t **ret,
	      struct error *err);

/*
 * Waits until the VM's agent has answered and the VMs of its network know each other's names
 * (agent), or until its VMM takes commands. *ret is then the ready record (NULL without agent).
 * -ECHILD: it has ended, why is in err; -ETIMEDOUT: it runs on.
 */
int vms_wait(const char *name, bool agent, unsigned timeout_ms, json_t **ret, struct error *err);

/* The state directory of a VM that runs, a new string; the error says what became of others. */
int vms_dir(const char *name, char **ret, struct error *err);

/* The same for one with a hand-over that is not settled, which may have ended. */
int vms_hand_over_dir(const char *name, char **ret, struct error *err);

/*
 * A connection to its agent, for agent/client.h. Fails soon when the agent is not there.
 */
int vms_agent(const char *name, struct error *err);

/*
 * What is known of it: the configuration and "state" ("starting", "running", "paused", "ended",
 * "lost"), with "vcpus", "memory", "uptime_ms", "pid" while it runs, "boot" (the ready record) and
 * "end" (the end record), and "hand_over" (a text) when one is not settled. What was lost with its
 * keeper is swept away by this, unless such a record is needed. -ENOENT: no such VM.
 */
int vms_describe(const char *name, json_t **ret, struct error *err);

/* The names of all VMs, sorted; free with state_list_free(). Sweeps what dead networks left. */
int vms_names(char ***ret, struct error *err);

struct vms_stop {
	unsigned timeout_ms; /* for each step */
	bool kill;	     /* at once */
	bool forget;	     /* also a hand-over that is not settled (see vms_stop()) */
	const char *how;     /* out: what it took */
};

/*
 * Ends the VM by the gentlest way that works and removes its state, but not what another place may
 * still wait for, unless forget. Without kill and forget a VM that is being handed over is refused
 * (-EBUSY). Returns 0 also when it had ended before; -ENOENT: no such VM.
 */
int vms_stop(const char *name, struct vms_stop *stop, struct error *err);

/*
 * Waits for the end of networks that have no VMs any more. Returns at once for those that have.
 */
void vms_leave_networks(void);

/*
 * Sends a request to the keeper of a network, which is made when it is not there and make is set
 * (the process must be single-threaded then). -ENOENT: no such network; -EEXIST: it is another
 * than was asked for. *ret is the answer, a new reference; may be NULL.
 */
int vms_network_call(const struct vms_network *network, bool make, const json_t *request,
		     json_t **ret, struct error *err);

/*
 * Tells a network the names and addresses (as vms/hosts.h has them) of VMs, here or elsewhere, that
 * all its VMs are to know from their start; make as for vms_network_call(). -EINVAL, -E2BIG: too
 * many.
 */
int vms_expect(const struct vms_network *network, bool make, const json_t *hosts,
	       struct error *err);

/*
 * Links a network to the nodes with these addresses (an array of texts; this machine's own are
 * left out). local: this machine's address; NULL: the one among the nodes, else the one that
 * leads to the first of them. *added (may be NULL): the nodes that are new.
 */
int vms_link(const char *network, const char *local, const json_t *nodes, json_t **added,
	     struct error *err);

/* The address that this machine sends from when it sends to this one. */
int vms_address_towards(const char *node, char ret[16], struct error *err);

/*
 * Cuts the links to these nodes, or (NULL) all. undone: as if they had never been; else the nodes
 * come back only when they are linked again.
 */
int vms_unlink(const char *network, const json_t *nodes, bool undone, struct error *err);

/*
 * *ret is a descriptor for a command that begins to move a VM to or from here, or to fill an empty
 * one: when it dies before vms_release(), and before a hand-over is recorded, the network's keeper
 * cuts the links to these nodes (NULL: none), and (empty) ends the VM, into which nothing came. Not
 * to be inherited. -1: the keeper is of a Wisp that has no guards, and takes nothing back: what a
 * command that is killed leaves is then a person's to end. Where the VM may run does not depend on
 * it.
 */
int vms_guard(const char *network, const char *name, bool empty, const json_t *nodes, int *ret,
	      struct error *err);

/* Nothing is to be taken back any more. Closes it; accepts -1. */
void vms_release(int *guard);

/* The names of networks that run, sorted; free with state_list_free(). */
int vms_network_names(char ***ret, struct error *err);

/* Removes what dead networks left. */
void vms_sweep_networks(void);

#endif
