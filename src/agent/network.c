/* SPDX-License-Identifier: Apache-2.0 */
/* This machine in a network of VMs: programs reach the others' agents, and those reach this one. */

#include "agent/agent.h"

#include <arpa/inet.h>
#include <errno.h>

#include "agent/hosts.h"
#include "agent/peers.h"
#include "agent/relay.h"
#include "lib/error.h"
#include "lib/io.h"

static void on_peer(void *arg, int fd, uid_t uid)
{
	struct agent *agent = arg;

	if (session_create(agent, fd, uid))
		log_warn(&agent->log, "peers", "no memory for a session");
}

int network_join(struct agent *agent, const char *address, struct error *err)
{
	const char *path = agent->relay_path ? agent->relay_path : RELAY_PATH;
	struct peers *peers;
	struct in_addr at;
	int r = 0;

	if (!address || inet_pton(AF_INET, address, &at) != 1 || !at.s_addr)
		return error_set(err, -EINVAL, "\"peers\" is not this machine's IPv4 address");
	if (!agent->relay && !agent->relay_path)
		r = io_make_dirs("/run/wisp", 0755, err);
	if (!r && !agent->relay)
		r = relay_create(agent->loop, &agent->log, path, HOSTS_PATH, &agent->relay, err);
	if (r || peers_at(agent->peers, at))
		return r;
	relay_set_address(agent->relay, at);
	r = peers_create(agent->loop, &agent->log, at, HOSTS_PATH, on_peer, agent, &peers, err);
	if (r)
		return r;
	peers_destroy(agent->peers);
	agent->peers = peers;
	return 0;
}

void network_leave(struct agent *agent)
{
	peers_destroy(agent->peers);
	relay_destroy(agent->relay);
	agent->peers = NULL;
	agent->relay = NULL;
}
