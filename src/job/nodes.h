/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_NODES_H
#define WISP_JOB_NODES_H

/*
 * All nodes of a cluster as one: a connection to this node's daemon, which makes the others a tree
 * below it (docs/formats/node.md). It is made again when it breaks. For the thread of the loop.
 */

#include <jansson.h>
#include <stdint.h>

#include "job/gather.h"

struct error;
struct loop;
struct nodes;

#define NODES_ASK_MS 60000u
#define NODES_NO_LIMIT UINT32_MAX /* of time: the nodes see to it that there is an answer */

struct nodes_ops {
	/* Joined, also again: who is there, and for the others a reason. */
	void (*up)(void *arg, const struct gather *answer);
	/* The daemon of this node does not answer; it is called again by itself. */
	void (*down)(void *arg, const char *reason);
	/* What a node says unasked. */
	void (*event)(void *arg, const json_t *event);
};

struct nodes_params {
	struct loop *loop;
	const char *socket;  /* of this node's daemon */
	const char *session; /* the secret of the cluster */
	json_t *names;	     /* of all, this node's first: a reference is taken */
	const struct nodes_ops *ops;
	void *arg;
};

/* What params points to outlives it. It begins to call. */
int nodes_create(const struct nodes_params *params, struct nodes **ret, struct error *err);
/* Nobody is told any more. Accepts NULL. */
void nodes_destroy(struct nodes *nodes);

/* Once, not out of a call. The answer is valid in the call. */
typedef void nodes_fn(void *arg, const struct gather *answer);

/*
 * Asks the nodes of to ("0-3,7"; NULL: all). Takes the request, and gives it an id. An answer comes
 * in any case: -ETIMEDOUT after timeout_ms (0: NODES_ASK_MS), -EHOSTDOWN when the daemon of this
 * node is lost meanwhile or is not there. Nodes that are lost meanwhile are errors of the answer.
 */
void nodes_ask(struct nodes *nodes, json_t *request, const char *to, unsigned timeout_ms,
	       nodes_fn *fn, void *arg);

/* Nobody with this arg waits for answers any more. */
void nodes_forget(struct nodes *nodes, const void *arg);

#endif
