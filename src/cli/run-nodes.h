/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_RUN_NODES_H
#define WISP_CLI_RUN_NODES_H

/* The list of a cluster's nodes, as a coordinator wants it (docs/formats/job.md). */

#include <jansson.h>
#include <stdbool.h>

struct error;

/*
 * Puts this node, of which facts are, first; false in *self: it gets no VM, as it was not in the
 * list. An empty list is this node alone.
 */
int run_nodes_complete(json_t *nodes, const json_t *facts, bool *self, struct error *err);

/* The IPv4 address of each, for each other; none where there is one node. It may ask name servers.
 */
int run_nodes_addresses(const json_t *nodes, json_t **ret, struct error *err);

#endif
