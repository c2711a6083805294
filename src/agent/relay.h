/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_RELAY_H
#define WISP_AGENT_RELAY_H

/*
 * The near half of wisp-rsh: whoever in this machine asks for another VM of the network is
 * connected with the agent there, as the user that the kernel says it is (docs/formats/agent.md,
 * From VM to VM). The far half is agent/peers.h. Everything belongs to the thread of the loop.
 */

#include <netinet/in.h>

struct error;
struct log;
struct loop;
struct relay;

/* Where programs find it. */
#define RELAY_PATH "/run/wisp/relay"

/*
 * Listens at the UNIX socket path, for all users; hosts is the file that names the VMs (see
 * agent/hosts.h). Loop, log and texts stay the caller's and live longer. The process must be
 * able to use reserved ports.
 */
int relay_create(struct loop *loop, const struct log *log, const char *path, const char *hosts,
		 struct relay **ret, struct error *err);

/* The address of this machine in the network: what it connects from. Needed before the first. */
void relay_set_address(struct relay *relay, struct in_addr address);

/* Ends all connections and removes the socket. Accepts NULL. */
void relay_destroy(struct relay *relay);

#endif
