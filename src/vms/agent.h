/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_AGENT_H
#define WISP_VMS_AGENT_H

/* The way to the agent of a VM, by its state directory. Any thread. */

struct error;

/* For client_connect(): a new string, NULL when out of memory. */
char *vm_agent_address(const char *dir);

/* A connection (CLOEXEC) for agent/client.h, or -errno: fails soon when the agent is not there. */
int vm_agent_connect(const char *dir, struct error *err);

#endif
