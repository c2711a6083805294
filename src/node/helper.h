/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_HELPER_H
#define WISP_NODE_HELPER_H

/*
 * The jobs of wisp-node-helper (docs/formats/node.md, "The helper"): what the daemon has done by
 * a process of its own, because it blocks, needs a single thread, or ends in another program. The
 * daemon's user has written the job, so it is checked for mistakes, not for malice.
 */

#include <jansson.h>

struct error;

/* 0 or -errno with the reason. What failed has left nothing behind. */
typedef int helper_job(const json_t *job, struct error *err);

/* helper-network.c: the network of a cluster. */
helper_job helper_network_make;	 /* anew, whole or not at all */
helper_job helper_network_nodes; /* links and unlinks nodes */
helper_job helper_network_taps;	 /* adds and removes taps */

/* helper-clean.c: ends whatever runs in a cluster's group and network, and removes both. */
helper_job helper_clean;

/* helper-become.c: becomes the user and runs a program; returns only when it could not. */
helper_job helper_become;

/* The text of a job's member, or NULL. */
const char *helper_text(const json_t *job, const char *key);

/* The same, which has to be there: -EINVAL. */
int helper_need(const json_t *job, const char *key, const char **ret, struct error *err);

#endif
