/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_PEERS_H
#define WISP_AGENT_PEERS_H

/*
 * The far half of wisp-rsh: takes connections from the agents of other VMs of the network and
 * makes each a session of the user who asked there (docs/formats/agent.md, From VM to VM). The
 * near half is agent/relay.h. Everything belongs to the thread of the loop.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/types.h>

struct error;
struct log;
struct loop;
struct peers;

/* A connection to be served as that user; takes the fd, which does not block. */
typedef void peers_fn(void *arg, int fd, uid_t uid);

/*
 * Listens at that address of this machine for those that the file hosts names. Loop, log, hosts
 * and arg stay the caller's and live longer.
 */
int peers_create(struct loop *loop, const struct log *log, struct in_addr address,
		 const char *hosts, peers_fn *fn, void *arg, struct peers **ret, struct error *err);

/* Ends what was not yet made a session. Accepts NULL. */
void peers_destroy(struct peers *peers);

/* Is it this address that it listens at? Accepts NULL. */
bool peers_at(const struct peers *peers, struct in_addr address);

#endif
