/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_TREE_TREE_H
#define WISP_TREE_TREE_H

/*
 * One node's part in the tree of daemons of a cluster (docs/formats/node.md, "The tree"): a member
 * has a connection from above, calls its children, takes requests down, brings their answers up as
 * one, and takes over the children of a child that is lost. For the thread of the loop.
 */

#include <jansson.h>
#include <stdint.h>

struct conn;
struct error;
struct loop;
struct tree_call;
struct tree_member;
struct tree_request;

#define TREE_FAN_MAX 128u
#define TREE_VALUE_MAX (64u << 10) /* bytes of what one node answers */

struct tree_ops {
	/*
	 * A connection to a node is wanted. Answered by tree_connected() or tree_refused(), once,
	 * also at once, unless cancel() came.
	 */
	void (*connect)(void *arg, const char *node, struct tree_call *call);
	/* Nobody wants it any more. The connection attempt is the caller's to end. */
	void (*cancel)(void *arg, struct tree_call *call);
	/*
	 * A request for this node: its op, and all else it has. Answered by tree_answer(), once,
	 * also at once, also when nobody waits for it any more. The message stays the member's.
	 */
	void (*request)(void *arg, struct tree_request *request, const json_t *message);
	/* Nothing is above: the grace time runs. And: it was not in vain. */
	void (*orphaned)(void *arg);
	void (*adopted)(void *arg);
	/* It is over. The member can still be joined, until it is destroyed. Not out of a call. */
	void (*over)(void *arg);
};

struct tree_params {
	struct loop *loop;
	const struct tree_ops *ops; /* outlives the member */
	void *arg;
	unsigned call_ms;  /* for a connection to a child; 0: 4 s */
	unsigned retry_ms; /* until a lost one is called again, then twice as long, ...; 0: 5 s */
	unsigned grace_ms; /* 0: 30 s */
};

/*
 * Into how many shares each member cuts what is below it, in a tree of so many nodes (1 or more)
 * whose join does not say it: 16, or as many more as it takes that nobody is more than two below
 * the first, up to TREE_FAN_MAX. An answer's way, so what a node does for those of others, is as
 * long with a thousand nodes as with a hundred.
 */
uint32_t tree_fan(uint32_t nodes);

int tree_create(const struct tree_params *params, struct tree_member **ret, struct error *err);

/* Ends its connections. No callback but cancel() comes; requests that are not answered stay valid.
 */
void tree_destroy(struct tree_member *member);

/*
 * The connection on which `join` came, whose caller may ask this, is above from now on, and the
 * member's own in any case; an earlier one is ended. A join that cannot be is refused there.
 */
void tree_join(struct tree_member *member, struct conn *above, const json_t *join);

/* The connection becomes the member's. */
void tree_connected(struct tree_call *call, struct conn *conn);
void tree_refused(struct tree_call *call, const char *reason);

/*
 * What came of a request here. code 0: done, and value (NULL: nothing to add) is said of it; else
 * -errno and the reason, and value (or NULL) has members that say more. value stays the caller's.
 * The request is gone afterwards.
 */
void tree_answer(struct tree_request *request, int code, const char *reason, const json_t *value);

/* Says something to whoever is above; nothing where nobody is. The event stays the caller's. */
void tree_event(struct tree_member *member, json_t *event);

/* This node's place in the whole list. */
uint32_t tree_place(const struct tree_member *member);

/* Nodes of this one's share that are reached, with this one. */
uint32_t tree_reached(const struct tree_member *member);

/* Messages that came and went so far, on the connections that it has now. */
uint64_t tree_messages(const struct tree_member *member);

#endif
