/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CLUSTER_AGENT_H
#define WISP_CLI_CLUSTER_AGENT_H

struct error;

/*
 * A session with the agent of a VM of a cluster, wherever it runs: a descriptor for agent/client.h.
 * name: of the VM, or of the cluster: its first one. A thread moves the bytes.
 */
int cluster_agent(const char *name, struct error *err);

#endif
