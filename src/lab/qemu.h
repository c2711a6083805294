/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LAB_QEMU_H
#define WISP_LAB_QEMU_H

/* What a node is, told to QEMU and to the node's kernel. */

#include <stdbool.h>
#include <stdint.h>

#include "lib/args.h"

#define LAB_NODES_MAX 64
#define LAB_SHARES_MAX 16
#define LAB_DISKS_MAX 16
#define LAB_AGENT_PORT 1024
#define LAB_BRIDGE_ADDRESS "10.77.0.1" /* the host's end of a lab's network */
#define LAB_PREFIX 24

struct lab_disk {
	unsigned node; /* counted from 0 */
	char *path;    /* absolute */
};

struct lab_config {
	char *name, *dir;		 /* its state directory */
	unsigned nodes, cpus, hugepages; /* cpus, hugepages: of each node */
	uint64_t memory;		 /* bytes, of each node */
	bool nvme;			 /* an NVMe disk with SR-IOV in each node */
	bool ssh;			 /* between the nodes */
	int ssh_keys;			 /* descriptor of the archive for that, when started */
	bool kvm;			 /* hardware virtualization instead of emulation */
	unsigned tsc_khz;		 /* of this machine, which an emulated CPU shows as well */
	char *kernel, *agent;		 /* files: the bzImage, the static wisp-agent */
	char *modules;			 /* folder lib/modules/RELEASE of that kernel */
	char *virtiofsd;		 /* program */
	char *preload; /* library for it (noatime.c) when the user is not root, else NULL */
	char *shares[LAB_SHARES_MAX];
	unsigned nshares;
	struct lab_disk disks[LAB_DISKS_MAX];
	unsigned ndisks;
};

/* QEMU inherits these descriptors by number. */
#define QEMU_FD_TAP 3
#define QEMU_FD_FS 4 /* connected to the virtiofsd of the root; + 1 + n for share n */

/* "node1" and "10.77.0.2" of node 0. buf holds at least 16 bytes; returns buf. */
char *node_name(unsigned node, char *buf);
char *node_address(unsigned node, char *buf);

/* The command line of a node's QEMU, and of its kernel (one string). */
void qemu_args(const struct lab_config *config, unsigned node, struct args *ret);
char *node_cmdline(const struct lab_config *config, unsigned node);

#endif
