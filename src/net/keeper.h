/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_KEEPER_H
#define WISP_NET_KEEPER_H

/*
 * The keeper of a private network: one background process that is the first process of a
 * PID namespace and owns a network namespace with the bridge "wisp0" (for an ordinary user
 * inside a user namespace in which the user is root). What it starts dies with it, by the
 * kernel's hand, however it dies; it leaves nothing but its state directory
 * (net/state.h), and removes that when it is stopped in order.
 *
 * It listens on DIR/control (docs/design/lab.md lists the requests) and writes DIR/log. What
 * makes it a lab or a set of VMs are the hooks.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct log;
struct loop;
struct net_keeper;

/* All run on the keeper's loop; all may be NULL. arg is that of the configuration. */
struct net_hooks {
	/* The network is there; a failure ends the keeper and is what its starter is told. */
	int (*start)(struct net_keeper *keeper, void *arg, struct error *err);
	/*
	 * A request the keeper does not know. 0 after adding to the answer (an object with
	 * "ok" in it) and perhaps an open descriptor to hand over in *fd, which is closed
	 * afterwards; -ENOSYS for an unknown op, -EAGAIN: it may do soon, or -errno with the
	 * reason. Must not block.
	 */
	int (*request)(struct net_keeper *keeper, void *arg, const char *op, const json_t *request,
		       json_t *answer, int *fd, struct error *err);
	/* A process that was started by a hook has ended. */
	void (*child)(struct net_keeper *keeper, void *arg, pid_t pid, int status);
	/* The keeper is about to end. Children that are left are killed afterwards. */
	void (*stop)(struct net_keeper *keeper, void *arg);
};

struct net_config {
	const char *dir;     /* state directory (lib/paths.h: paths_run()) */
	const char *name;    /* in the log's lines */
	const char *address; /* of the bridge: "10.77.0.1/24" */
	const struct net_hooks *hooks;
	/*
	 * The process has entered a network that somebody else made (net/fabric.h), and its next
	 * child will be the first of a PID namespace: that child is the keeper. address is unused.
	 */
	bool entered;
	void *arg; /* the keeper is a fork: it sees a copy of what this points to */
};

/*
 * Starts a keeper and waits until its start hook is done. Returns 0 and a leash in *leash: when
 * that descriptor is closed (also by the death of its holder) the keeper ends, until
 * net_keeper_release(). -EBUSY: one runs in that directory. Call it while single-threaded.
 */
int net_keeper_start(const struct net_config *config, int *leash, struct error *err);

/* Lets the keeper live on; closes the leash. 0 or -errno. */
int net_keeper_release(int *leash);

/* For hooks. */
struct loop *net_keeper_loop(struct net_keeper *keeper);
const struct log *net_keeper_log(struct net_keeper *keeper);
const char *net_keeper_dir(struct net_keeper *keeper);

/*
 * A tap on the bridge (see link_add_tap()), or one that the keeper was given (net/held.h), which is
 * to rest when its machine has ended, or is on another node.
 */
int net_keeper_tap(struct net_keeper *keeper, const char *name, int *ret, struct error *err);

void net_keeper_tap_rest(struct net_keeper *keeper, const char *name);

/* A way to other nodes on the bridge; the underlay is where the starter was (see vxlan_add()). */
int net_keeper_vxlan(struct net_keeper *keeper, const char *name, uint32_t vni, uint32_t local,
		     struct error *err);

/* Ends the keeper after the hook that runs now. */
void net_keeper_stop(struct net_keeper *keeper);

#endif
