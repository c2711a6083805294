/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CLUSTER_LOST_H
#define WISP_CLI_CLUSTER_LOST_H

#include <stdbool.h>

struct error;

/* Whether nodes may still have something of it, by the record in its state directory. */
bool cluster_is_held(const char *folder);

/*
 * Has its nodes end what they have of it, and waits for that. -errno: of one that does not, or that
 * cannot be reached; it does so after its grace time.
 */
int cluster_end_lost(const char *folder, struct error *err);

#endif
