/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LAB_SUPERVISE_H
#define WISP_LAB_SUPERVISE_H

/* What makes a keeper (net/keeper.h) a lab: it starts the nodes and knows which of them live. */

#include "net/keeper.h"

struct lab;
struct lab_config;
struct error;

/* The hooks, for an arg made by lab_create(). */
extern const struct net_hooks lab_hooks;

/* config stays the caller's and must outlive the lab. 0 or -ENOMEM. */
int lab_create(const struct lab_config *config, struct lab **ret);
void lab_destroy(struct lab *lab);

#endif
