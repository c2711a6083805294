/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_CLUSTER_KEY_H
#define WISP_NODE_CLUSTER_KEY_H

/* The key of a cluster, by which daemons of nodes know each other (docs/formats/node.md). */

#include <stddef.h>
#include <stdint.h>

struct error;

#define CLUSTER_KEY_MIN 32u
#define CLUSTER_KEY_MAX 4096u

/*
 * Reads the file; path NULL: the usual one, and *n is 0 when it is not there. -EPERM: others may
 * read it. Returns 0 or -errno.
 */
int cluster_key_read(const char *path, uint8_t ret[CLUSTER_KEY_MAX], size_t *n, struct error *err);

#endif
