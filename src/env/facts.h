/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_FACTS_H
#define WISP_ENV_FACTS_H

/*
 * What is known of a request: an object of lists, {"user": ["ann"], "group": ["ann", "hpc"],
 * "walltime": [86400000]}. Any thread.
 */

#include "env/document.h"

struct error;

/* The description of a fact; NULL: there is none of this name. */
const struct field *fact_find(const char *name);

/* "user, group, ...", for messages. */
#define FACT_NAMES "user, group, project, queue, walltime, nodes, vms, application and node-type"

/* Adds a value as it is written. -EINVAL: there is no such fact, or it is no value of it. */
int facts_add(json_t *facts, const char *name, const char *value, struct error *err);

/* Adds user and group of this process, for each of which there is nothing yet. */
int facts_add_caller(json_t *facts, struct error *err);

/* Whether the document is about this request. If not, *why says it (new string). */
bool facts_match(const json_t *facts, const struct document *doc, char **why);

#endif
