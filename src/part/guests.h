/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_GUESTS_H
#define WISP_PART_GUESTS_H

/*
 * What becomes of the cluster's VMs on this node: seen in their state directories, whoever started
 * them. On the loop.
 */

#include <jansson.h>

#include "part/setup.h"

struct error;
struct guests;
struct loop;

enum guest_state {
	GUEST_NONE,	/* it was never started, or nothing is left of it */
	GUEST_STARTING, /* its VMM runs, its agent has not answered */
	GUEST_READY,
	GUEST_ENDED,
};

/*
 * What a VM is now: its ready record in READY, its end record in ENDED (NULL: lost without one).
 * Not out of a call of this interface, but for guests_create().
 */
typedef void guest_fn(void *arg, const struct setup_vm *vm, enum guest_state state,
		      const json_t *record);

/* Looks at all VMs of the setup, which lives longer, and tells what is there already. */
int guests_create(struct loop *loop, const struct setup *setup, guest_fn *fn, void *arg,
		  struct guests **ret, struct error *err);
/* The setup has more VMs than before. 0 or -ENOMEM. */
int guests_more(struct guests *guests, struct error *err);
void guests_destroy(struct guests *guests);

/* Something was done to VMs: looks soon. */
void guests_look(struct guests *guests);

enum guest_state guest_state(const struct guests *guests, const struct setup_vm *vm);
const char *guest_word(enum guest_state state);

#endif
