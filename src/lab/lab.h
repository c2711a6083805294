/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LAB_LAB_H
#define WISP_LAB_LAB_H

/*
 * The lab as commands see it: emulated nodes with a real KVM on a private network
 * (docs/design/lab.md). A lab is known by its name; its nodes are node1, node2, ...
 */

#include <stdbool.h>
#include <stdint.h>

#include "lab/qemu.h"

struct error;

/* Frees what the configuration points to. */
void lab_config_done(struct lab_config *config);

/*
 * Finds what nodes are made of: QEMU, virtiofsd, the kernel of a Debian package (KERNEL_DEFAULT
 * when NULL) and our agent. Fills kernel, modules, agent, virtiofsd and preload.
 */
int lab_prepare(struct lab_config *config, const char *kernel_package, struct error *err);

/*
 * Starts the nodes. Until net_keeper_release(leash) the lab ends with the caller. -EBUSY: there is
 * a lab of that name. Call it while single-threaded.
 */
int lab_start(struct lab_config *config, int *leash, struct error *err);

/* What is known of a node. */
struct lab_node {
	char name[16], address[16], reason[160]; /* reason: why it does not run, or "" */
	bool running;
};

struct lab_status {
	unsigned nodes, cpus;
	uint64_t memory;
	char accel[8]; /* "tcg" or "kvm" */
	struct lab_node node[LAB_NODES_MAX];
};

/* -ENOENT: no lab of that name runs. */
int lab_status(const char *name, struct lab_status *ret, struct error *err);

/* The lab's keeper died and left its state directory. */
bool lab_crashed(const char *name);

/*
 * A connection to the agent of a node, which the caller owns. -ENOENT: no such lab or node;
 * -EHOSTDOWN: the node has ended; others: no answer within timeout_ms.
 */
int lab_connect(const char *name, const char *node, int timeout_ms, int *ret, struct error *err);

/* 0 while the node runs; else what lab_connect() says of it. */
int lab_check_node(const char *name, const char *node, struct error *err);

/*
 * Makes the node see the files of this machine as they are now, when what argv names has changed
 * since it looked (lab/fresh.h), or in any case.
 */
int lab_freshen(const char *name, const char *node, const char *cwd, const char *const *argv,
		bool always, struct error *err);

/*
 * Waits until the node's agent answers and finishes the node's set-up. Fails as soon as the
 * node ends. 0 or -errno.
 */
int lab_wait_ready(const struct lab_config *config, unsigned node, uint64_t timeout_ns,
		   struct error *err);

/*
 * The last lines of what the node printed, and of what its processes said (new, the caller
 * frees it; "" when nothing).
 */
char *lab_console_tail(const struct lab_config *config, unsigned node);
char *lab_log_tail(const struct lab_config *config);

/* Ends the lab and waits until it is gone. 1 when there was one, 0 when not, or -errno. */
int lab_stop(const char *name, struct error *err);

#endif
