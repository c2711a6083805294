/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_BRAKE_H
#define WISP_MOVER_BRAKE_H

/*
 * Slows down the vCPUs that write more than can be sent, and no others. One thread.
 */

#include <stdint.h>

#include "mover/machine.h"

struct brake {
	struct machine *vmm;
	unsigned n;	  /* vCPUs */
	uint8_t *percent; /* that each lost */
	uint64_t *faults; /* of each, in the round; see machine_ops.faults */
	uint64_t *last;	  /* private */
	bool known;	  /* the VMM tells them */
};

/* For a VM with n vCPUs; nothing is slower yet. */
int brake_init(struct brake *b, struct machine *vmm, unsigned n, struct error *err);
/* Does not let go. Accepts a zeroed one. */
void brake_done(struct brake *b);

/* A round is over: looks who wrote in it. */
void brake_look(struct brake *b);

/*
 * Makes those slower that wrote these pages in the round that was looked at. -EAGAIN: none of them
 * can be slower.
 */
int brake_more(struct brake *b, uint64_t pages, struct error *err);

/* The share of its time that the slowest lost, percent. */
unsigned brake_most(const struct brake *b);

/* All vCPUs have their time again; percent stays, for the report. */
void brake_release(struct brake *b);

#endif
