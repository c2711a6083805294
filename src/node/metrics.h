/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_METRICS_H
#define WISP_NODE_METRICS_H

/*
 * Figures in Prometheus' text format, version 0.0.4: families one after the other, each with its
 * values. What goes wrong is told at the end, once. One thread.
 */

#include <stddef.h>

struct metrics;

struct metrics_label {
	const char *name, *value; /* any text as value */
};

/* NULL when out of memory, which the others accept. */
struct metrics *metrics_new(void);

/* type: "gauge" or "counter". help: any text. */
void metrics_family(struct metrics *m, const char *name, const char *type, const char *help);

/* A value of the family that was begun last. */
void metrics_value(struct metrics *m, double value, const struct metrics_label *labels, size_t n);

/* Frees m; *ret is the whole text, a new string. 0, -ENOMEM, or -EINVAL: a name was none. */
int metrics_take(struct metrics *m, char **ret);

#endif
