/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes of a cluster, completed by this one, and where they are. */

#include "cli/run-nodes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "job/nodelist.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "vms/vms.h"

int run_nodes_complete(json_t *nodes, const json_t *node, bool *self, struct error *err)
{
	const char *name = json_string_value(json_object_get(node, "name"));
	json_t *entry;
	int place;

	if (!name)
		return error_set(err, -EPROTO, "the daemon of this node does not say its name");
	place = nodelist_find(nodes, name);
	*self = place >= 0 || !json_array_size(nodes);
	entry = place >= 0 ? json_incref(json_array_get(nodes, (size_t)place)) : json_string(name);
	if (place >= 0)
		json_array_remove(nodes, (size_t)place);
	return json_array_insert_new(nodes, 0, entry) ? error_set(err, -ENOMEM, "out of memory")
						      : 0;
}

static int resolve(const char *entry, char ret[16], struct error *err)
{
	const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	const char *at = strchr(entry, '@');
	CLEANUP_FREE char *host = strndup(at ? at + 1 : entry, strcspn(at ? at + 1 : entry, ":"));
	struct addrinfo *found = NULL;
	int r = host ? getaddrinfo(host, NULL, &hints, &found) : EAI_MEMORY;

	if (r)
		return error_set(err, -EHOSTUNREACH, "node %s has no IPv4 address: %s", entry,
				 gai_strerror(r));
	inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)found->ai_addr)->sin_addr, ret, 16);
	freeaddrinfo(found);
	return 0;
}

/* Its own name may lead a node to its loopback: it is what it sends from to the others. */
int run_nodes_addresses(const json_t *nodes, json_t **ret, struct error *err)
{
	json_t *list = json_array(), *entry;
	char address[16];
	size_t i;
	int r = 0;

	json_array_foreach (nodes, i, entry) {
		if (r || json_array_size(nodes) < 2)
			break;
		if (!i && !strchr(json_string_value(entry), '@')) {
			r = resolve(json_string_value(json_array_get(nodes, 1)), address, err);
			if (!r)
				r = vms_address_towards(address, address, err);
		} else {
			r = resolve(json_string_value(entry), address, err);
		}
		if (!r)
			json_array_append_new(list, json_string(address));
	}
	if (r)
		json_decref(list);
	else
		*ret = list;
	return r;
}
