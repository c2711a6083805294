/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_WORK_H
#define WISP_PART_WORK_H

/*
 * A request that errands carry out, one for each VM at the same time, in one phase or several. It
 * is answered at its end, or when it says so.
 */

#include <jansson.h>
#include <stdbool.h>

#include "lib/error.h"
#include "part/errand.h"
#include "part/setup.h"

struct part;
struct work;

/* All errands of a phase have ended. Begins the next phase, or ends the work. */
typedef void work_fn(struct work *work);

struct work {
	struct part *part;
	json_int_t id;	 /* of the request; 0: answered, or nobody asked */
	json_t *request; /* a reference */
	/* What the errands of the phase said, by their VMs (or "" for one of none). */
	json_t *values;
	/* The first failure: 0, or -errno with the VM's name and the reason. */
	int code, status; /* and its wait status */
	struct error reason;
	json_t *more;
	bool begins; /* it starts VMs: a stop ends it first */
	/* What an errand says before its end, with a descriptor (-1: none) that is the callee's. */
	void (*said)(struct work *work, const char *vm, const json_t *message, int fd);
	/* The work's own, kept over phases. */
	json_t *notes;
	const struct setup_vm **vms;
	size_t nvms;
	/* Private. */
	struct work *next;
	struct work_errand *errands;
	work_fn *then;
};

/*
 * A new work for the VMs that the request names. NULL: it was refused, and that is answered. It
 * begins with work_go().
 */
struct work *work_create(struct part *part, json_int_t id, const json_t *request);

/* An errand of the phase that is about to begin. vm may be NULL. A failure is the errand's. */
void work_add(struct work *work, const struct setup_vm *vm, errand_fn *fn, void *fn_arg);

/* Says something to the errand that was added last. 0 or -errno. */
int work_tell(struct work *work, const json_t *message);

/* Begins the phase; then() comes also when there is nothing to wait for. */
void work_go(struct work *work, work_fn *then);

/* It has failed, unless it had before. */
void work_fail(struct work *work, int code, const char *reason);

/* Ends what is under way, which fails with -ECANCELED, unless it has failed before. */
void work_cancel(struct work *work, const char *why);

/* Answers with the values, or the failure; the work has no request any more. */
void work_answer(struct work *work);

/* Answers, if that is due, and frees it. */
void work_end(struct work *work);

/* Frees all, and answers nothing. */
void works_destroy(struct part *part);

#endif
