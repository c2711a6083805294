/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_TREE_MEMBER_H
#define WISP_TREE_MEMBER_H

/* What member.c (who is there) and request.c (what is asked) share. */

#include <stdbool.h>

#include "tree/nodeset.h"
#include "tree/tree.h"

enum child_state { CHILD_CALLED, CHILD_JOINING, CHILD_UP, CHILD_LOST };

/* A child, and the token of its connection attempt. */
struct tree_call {
	struct tree_call *next;
	struct tree_member *member;
	enum child_state state;
	uint32_t first, last; /* its share; a lost one has only itself */
	struct nodeset reached;
	struct conn *conn;
	struct loop_source *timer; /* of the call, or until the next */
	unsigned tries;
	char *why;	 /* it was lost, or NULL */
	json_int_t join; /* id */
};

struct tree_member {
	struct tree_params params;
	struct conn *above;
	struct loop_source *grace;
	bool orphaned;
	json_t *session;	     /* of the join: passed on */
	json_t *nodes;		     /* names of the share */
	uint32_t first, last, fan;   /* the share in the whole list: this node is its first */
	json_int_t join;	     /* id of the join that is not answered, or 0 */
	struct nodeset told;	     /* who is reached, as far as it is known above */
	struct tree_call *children;  /* none goes before all do */
	struct tree_call **end;	     /* of that list */
	struct tree_call *unsettled; /* by the join: none is before this one */
	struct tree_request *requests;
	json_int_t next_id;
};

const char *member_node(const struct tree_member *member, uint32_t place);
/* That a child is not reached, and why as far as it is known. */
void child_error(const struct tree_call *child, struct error *ret);

/* A message with op for all or some of the share. */
void request_begin(struct tree_member *member, const json_t *message);
/* A message with re from a child. 0, or -EPROTO with the reason. */
int request_hear(struct tree_call *child, const json_t *message, struct error *err);
/* It says nothing more: its share is answered for. */
void request_child_lost(struct tree_call *child, const char *reason);
/* Nobody waits for answers any more. */
void request_forget(struct tree_member *member);
/* The member goes. */
void request_orphan(struct tree_member *member);

/* {"node", "errno", "error"}; NULL: out of memory. */
json_t *request_error(uint32_t place, int code, const char *reason);

#endif
