/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_CLAIM_H
#define WISP_NODE_CLAIM_H

/* What a cluster wants of this node (docs/formats/node.md, Claims), checked once. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

#define CLAIM_NAME 64
#define CLAIM_VMS 1024
#define CLAIM_CPUS 254
#define CLAIM_DEVICES 32
#define CLAIM_BASE 4096 /* the page size that is not reserved beforehand */

enum claim_numa {
	CLAIM_NONE,   /* one NUMA node if there is one, else any memory and cores */
	CLAIM_ONE,    /* one NUMA node */
	CLAIM_MIRROR, /* equal parts of some nodes, as few as possible */
};

struct claim_vm {
	char name[CLAIM_NAME];
	unsigned cpus;
	uint64_t memory, page_size; /* bytes */
	bool dedicated;		    /* whole cores of its own */
	bool cores;		    /* a core for each of cpus, not only a hardware thread */
	enum claim_numa numa;
	unsigned ndevices;
	char devices[CLAIM_DEVICES][24]; /* ADDRESS, "vf:ADDRESS" or "VENDOR:DEVICE" */
};

struct claim {
	char cluster[CLAIM_NAME];
	unsigned user;
	unsigned nvms;
	struct claim_vm *vms;
};

/* A new claim of what a peer sent. -EINVAL tells the member that is wrong. */
int claim_parse(const json_t *json, unsigned user, struct claim **ret, struct error *err);
void claim_destroy(struct claim *claim);

#endif
