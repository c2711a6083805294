/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_GUARD_H
#define WISP_VMS_GUARD_H

/*
 * What a command has begun at a network and may not bring to its end: the keeper takes it back when
 * the command dies. The command holds a descriptor; its end, without a word before, sets that off.
 * On the keeper's loop.
 */

#include <jansson.h>
#include <stdbool.h>

struct error;
struct guards;
struct loop;

/* Takes back what was begun, as guards_add() was told. */
typedef void guard_fn(void *arg, const json_t *request);
/* Whether it has gone so far, as of now, that nothing is ever taken back. */
typedef bool guard_keep_fn(void *arg, const json_t *request);

int guards_create(struct loop *loop, guard_fn *fn, guard_keep_fn *keep, void *arg,
		  struct guards **ret);
void guards_destroy(struct guards *guards);

/*
 * {"name": VM, "peers": [ADDRESS...], "empty": whether it is a machine into which nothing came}:
 * *ret is the command's descriptor.
 */
int guards_add(struct guards *guards, const json_t *request, int *ret, struct error *err);

/* Takes back now what is to be taken back for that VM soon, because another command begins. */
void guards_settle(struct guards *guards, const char *name);

#define GUARD_WORD "r" /* of a command that has come to its end */

#endif
