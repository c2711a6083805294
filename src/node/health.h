/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_HEALTH_H
#define WISP_NODE_HEALTH_H

/*
 * How a node is: facts from the kernel, read when asked for. What it does not tell is left out, and
 * is not taken for healthy or ill. Any thread.
 */

#include <jansson.h>

struct error;
struct metrics;
struct topology;

enum health_state {
	HEALTH_OK,
	HEALTH_WARN, /* somebody should look */
	HEALTH_BAD,  /* VMs should go elsewhere */
};

/*
 * A new object: "state" ("ok", "warn", "bad": the worst of all), and "facts", a list: "name",
 * "state", "value" (a number), and "about" (which node, sensor ...), "text" (why it is not ok)
 * where there is something to say. dead: VMMs that ended and nobody asked them to. The huge pages
 * are those the topology had at its last refresh. root: of /proc and /sys.
 */
int health_read(const char *root, const struct topology *t, unsigned dead, json_t **ret,
		struct error *err);

/* The same facts as metrics: wisp_node_NAME. */
void health_metrics(const json_t *health, struct metrics *m);

#endif
