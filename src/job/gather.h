/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_GATHER_H
#define WISP_JOB_GATHER_H

/*
 * The answers to one request of the tree (docs/formats/node.md), as they become one: who did it,
 * what they said, who failed. Pure; any thread.
 */

#include <jansson.h>

#include "lib/error.h"
#include "tree/nodeset.h"

struct gather {
	struct nodeset ok;     /* did it; with values or without */
	struct nodeset failed; /* those of errors */
	json_t *values;	       /* {"PLACE": value} */
	json_t *errors;	       /* [{"node": PLACE, "errno", "error"}] */
	int code;	       /* 0, or -errno: it was refused, or lost, as a whole */
	struct error why;      /* with code */
	json_t *more;	       /* with code: the answer, which may say more; or NULL */
};

/* Returns 0 or -ENOMEM. */
int gather_init(struct gather *g);
void gather_done(struct gather *g);

/* 1: that was the last one; 0: more will come; -EPROTO: it is no answer. */
int gather_add(struct gather *g, const json_t *message, struct error *err);

/* It comes to nothing. */
void gather_fail(struct gather *g, int code, const char *reason);

/* Whether everybody who answered did it, and nothing is wrong with the request itself. */
bool gather_is_good(const struct gather *g);

/* The value of a place, or NULL. */
const json_t *gather_value(const struct gather *g, uint32_t place);

#endif
