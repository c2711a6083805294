/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_RELAY_H
#define WISP_AGENT_RELAY_H

/*
 * The host's part of wisp-rsh: connects a guest that asks for another VM with that VM's
 * agent (docs/formats/agent.md, Relay). Everything belongs to the thread of the loop.
 */

struct error;
struct log;
struct loop;
struct relay;

/*
 * Where the VM "name" that VM "from" asks for is: 0 and the path of its vsock UNIX socket in
 * *path (a new string, freed by the relay), or -errno with a reason for the guest.
 */
typedef int relay_lookup_fn(void *arg, const char *from, const char *name, char **path,
			    struct error *err);

/* The loop, the log and arg stay the caller's and live longer. */
int relay_create(struct loop *loop, const struct log *log, relay_lookup_fn *lookup, void *arg,
		 struct relay **ret);

/* Ends all connections and removes the sockets. Accepts NULL. */
void relay_destroy(struct relay *relay);

/* Serves the VM: listens at "VSOCK_PATH_1025", where the VMM takes the guest's connections. */
int relay_add(struct relay *relay, const char *name, const char *vsock_path, struct error *err);

/* No longer; connections that exist go on. Nothing when there is no such VM. */
void relay_remove(struct relay *relay, const char *name);

#endif
