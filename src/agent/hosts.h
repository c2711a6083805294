/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_HOSTS_H
#define WISP_AGENT_HOSTS_H

/*
 * The machines of this one's network, as the host told them: lines of /etc/hosts that are marked
 * as ours. A static program has no resolver that may be trusted not to wait. Any thread.
 */

#include <jansson.h>
#include <netinet/in.h>

struct error;

#define HOSTS_PATH "/etc/hosts"

/* hosts: [{"name", "address"}]: replaces the lines of the file that are marked as ours. */
int hosts_set(const char *path, const json_t *hosts, struct error *err);

/* The IPv4 address of a name, or of an address that is listed. -ENOENT: none of ours. */
int hosts_find(const char *path, const char *name, struct in_addr *ret, struct error *err);

/* Whether one of ours has this address: 0, -ENOENT, or why that cannot be said. */
int hosts_has(const char *path, struct in_addr address, struct error *err);

#endif
