/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of VMs as commands see them: made, found, described and linked. */

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/client.h"
#include "net/keeper.h"
#include "net/message.h"
#include "net/state.h"
#include "net/vxlan.h"
#include "vms/guard.h"
#include "vms/hosts.h"
#include "vms/network.h"
#include "vms/record.h"
#include "vms/vms.h"

#define NETWORK_PATIENCE_NS 10000000000ULL
#define LOOK_MS 20
#define EXPECTED_ONCE 400 /* fit into a request */

/* 16 hexadecimal digits, or a new one. */
static int choose_id(const char *text, uint64_t *ret, struct error *err)
{
	if (!text && getrandom(ret, sizeof(*ret), 0) != sizeof(*ret))
		return error_errno(err, -errno, "no random identity for the network");
	if (!text)
		return 0;
	if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return error_set(err, -EINVAL,
				 "\"%s\" is not the identity of a network: 16 hexadecimal digits",
				 text);
	*ret = strtoull(text, NULL, 16);
	return 0;
}

static int make_network(const struct vms_network *wanted, const char *dir, struct error *err)
{
	static const struct subnet standard = {.base = 0x0a4e0000, .prefix = 24};
	CLEANUP_FREE char *vms = NULL;
	CLEANUP_FREE char *address = NULL;
	struct network_config config = {.name = wanted->name,
					.dir = dir,
					.subnet = wanted->subnet ? *wanted->subnet : standard};
	struct net_config net = {.dir = dir, .name = wanted->name, .hooks = &network_hooks};
	struct network *network = NULL;
	char bridge[16];
	int leash, r = paths_run("vm", NULL, &vms, err);

	if (!r)
		r = choose_id(wanted->id, &config.id, err);
	if (r)
		return r;
	config.ordinary_user = geteuid() != 0;
	config.vms = vms;
	address = io_format("%s/%u", subnet_format(config.subnet.base + 1, bridge),
			    config.subnet.prefix);
	net.address = address;
	r = address ? network_create(&config, &network) : -ENOMEM;
	if (r)
		return error_errno(err, r, "cannot start network %s", wanted->name);
	net.arg = network;
	r = net_keeper_start(&net, &leash, err);
	/* It ends by itself when no VM comes; our death must not end VMs that others start. */
	if (!r)
		r = net_keeper_release(&leash);
	network_destroy(network);
	return r;
}

static int compare(const struct vms_network *wanted, const json_t *is, struct error *err)
{
	const char *base = record_text(is, "base"), *id = record_text(is, "id");
	int prefix = (int)json_integer_value(json_object_get(is, "prefix"));
	char text[16];

	if (wanted->subnet && (strcmp(base, subnet_format(wanted->subnet->base, text)) ||
			       prefix != (int)wanted->subnet->prefix))
		return error_set(err, -EEXIST,
				 "network %s exists as %s/%d: stop its VMs first, or take another "
				 "--net",
				 wanted->name, base, prefix);
	if (wanted->id && strcmp(wanted->id, id))
		return error_set(err, -EEXIST,
				 "network %s exists here and is another one (%s, not %s): stop its "
				 "VMs first, or take another --net",
				 wanted->name, id, wanted->id);
	return 0;
}

/* A network that exists stays as it is. */
static int check_network(int control, const struct vms_network *wanted, struct error *err)
{
	json_t *request = json_pack("{ss}", "op", "network"), *answer = NULL;
	int r = request ? message_call(control, request, &answer, NULL, err) : -ENOMEM;

	if (!r)
		r = compare(wanted, answer, err);
	json_decref(answer);
	json_decref(request);
	return r;
}

/* One try; -EPIPE and the like: the keeper ended while we asked. */
static int try_call(const struct vms_network *network, const char *dir, bool make,
		    const json_t *request, json_t **ret, struct error *err)
{
	CLEANUP_CLOSE int control = net_connect(dir, err);
	int r = 0;

	if (control < 0 && make) {
		r = make_network(network, dir, err);
		if (r)
			return r;
		control = net_connect(dir, err);
	}
	if (control < 0)
		return control;
	if (network->subnet || network->id)
		r = check_network(control, network, err);
	return r ? r : message_call(control, request, ret, NULL, err);
}

/* Networks come and go while we look: somebody else starts it, or its last VM just ended. */
static bool is_passing(int r)
{
	return r == -EAGAIN || r == -EBUSY || r == -EPIPE || r == -ECONNRESET ||
	       r == -ECONNREFUSED || r == -ENOENT;
}

int vms_network_call(const struct vms_network *network, bool make, const json_t *request,
		     json_t **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	uint64_t end = io_now_ns() + NETWORK_PATIENCE_NS;
	int r = paths_run("net", network->name, &dir, err);

	make &= !network->lent;
	if (r)
		return r;
	while (is_passing(r = try_call(network, dir, make, request, ret, err)) && make &&
	       io_now_ns() < end)
		poll(NULL, 0, LOOK_MS);
	if (!make && is_passing(r))
		r = error_set(err, -ENOENT,
			      "there is no network %s here: it lives as long as it has VMs",
			      network->name);
	return r;
}

static int expect_some(const struct vms_network *network, bool make, const json_t *hosts,
		       size_t first, struct error *err)
{
	json_t *some = json_array(), *request = json_pack("{ss,so}", "op", "hosts", "hosts", some);
	int r;

	for (size_t i = first; i < first + EXPECTED_ONCE && i < json_array_size(hosts); i++)
		json_array_append(some, json_array_get(hosts, i));
	r = request ? vms_network_call(network, make, request, NULL, err) : -ENOMEM;
	json_decref(request);
	return r;
}

int vms_expect(const struct vms_network *network, bool make, const json_t *hosts, struct error *err)
{
	json_t *all = NULL;
	size_t i = 0;
	int r = hosts_expand(hosts, &all, err);

	if (r)
		return r;
	do
		r = expect_some(network, make, all, i, err);
	while (!r && (i += EXPECTED_ONCE) < json_array_size(all));
	json_decref(all);
	return r;
}

/* -------- links -------- */

static bool is_own(uint32_t address)
{
	struct ifaddrs *list = NULL;
	bool found = false;

	if (getifaddrs(&list) < 0)
		return false;
	for (const struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
		struct sockaddr_in in;

		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
			continue;
		memcpy(&in, i->ifa_addr, sizeof(in));
		found = ntohl(in.sin_addr.s_addr) == address;
	}
	freeifaddrs(list);
	return found;
}

int vms_address_towards(const char *node, char ret[16], struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(VXLAN_PORT)};
	socklen_t size = sizeof(in);

	if (inet_pton(AF_INET, node, &in.sin_addr) != 1)
		return error_set(err, -EINVAL, "\"%s\" is not the IPv4 address of a node", node);
	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&in, &size) < 0)
		return error_errno(err, -errno, "no way to node %s", node);
	subnet_format(ntohl(in.sin_addr.s_addr), ret);
	return 0;
}

/* The nodes but our own addresses, a new reference; one of those goes to own, or "". */
static json_t *split_nodes(const json_t *nodes, char own[16])
{
	json_t *others = json_array(), *node;
	uint32_t address;
	size_t i;

	*own = 0;
	json_array_foreach ((json_t *)nodes, i, node) {
		if (json_is_string(node) && !subnet_parse_ipv4(json_string_value(node), &address) &&
		    is_own(address))
			subnet_format(address, own);
		else
			json_array_append(others, node);
	}
	return others;
}

static int choose_local(const char *wanted, const json_t *others, char own[16], struct error *err)
{
	const char *first = json_string_value(json_array_get(others, 0));
	uint32_t address;

	if (!wanted)
		return *own || !first ? 0 : vms_address_towards(first, own, err);
	if (subnet_parse_ipv4(wanted, &address) || !is_own(address))
		return error_set(err, -EINVAL, "%s is no IPv4 address of this machine", wanted);
	subnet_format(address, own);
	return 0;
}

int vms_link(const char *network, const char *local, const json_t *nodes, json_t **added,
	     struct error *err)
{
	const struct vms_network net = {.name = network};
	char own[16];
	json_t *others = split_nodes(nodes, own), *answer = NULL, *request = NULL;
	int r = choose_local(local, others, own, err);

	if (!r && json_array_size(others)) {
		request = json_pack("{ss,ss,sO}", "op", "link", "local", own, "peers", others);
		r = request ? vms_network_call(&net, false, request, &answer, err) : -ENOMEM;
	}
	if (!r && added)
		*added = answer ? json_incref(json_object_get(answer, "added")) : json_array();
	json_decref(answer);
	json_decref(request);
	json_decref(others);
	return r;
}

int vms_unlink(const char *network, const json_t *nodes, bool undone, struct error *err)
{
	const struct vms_network net = {.name = network};
	json_t *request =
		json_pack("{ss,sO*,sb}", "op", "unlink", "peers", nodes, "undone", undone);
	int r = request ? vms_network_call(&net, false, request, NULL, err) : -ENOMEM;

	json_decref(request);
	return r;
}

/* -------- what must not stay half done -------- */

/* What net/keeper.c says to what it does not know. A network may be older than this program. */
static bool is_unknown(int r, const char *op, const struct error *err)
{
	CLEANUP_FREE char *text = io_format("unknown op \"%s\"", op);

	return r == -EREMOTEIO && text && !strcmp(err->text, text);
}

int vms_guard(const char *network, const char *name, bool empty, const json_t *nodes, int *ret,
	      struct error *err)
{
	struct error local = {{0}};
	json_t *request = json_pack("{ss,ss,sb,sO*}", "op", "guard", "name", name, "empty", empty,
				    "peers", nodes);
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_CLOSE int control = -1;
	int guard = -1, r = request ? paths_run("net", network, &dir, err) : -ENOMEM;

	if (!r)
		r = control = net_connect(dir, err);
	if (r >= 0)
		r = message_call(control, request, NULL, &guard, err ? err : (err = &local));
	json_decref(request);
	if (r < 0 && !is_unknown(r, "guard", err))
		return r;
	*ret = guard;
	return 0;
}

void vms_release(int *guard)
{
	if (*guard < 0)
		return;
	send(*guard, GUARD_WORD, sizeof(GUARD_WORD) - 1, MSG_NOSIGNAL);
	close(*guard);
	*guard = -1;
}

/* -------- all of them -------- */

int vms_network_names(char ***ret, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = paths_run("net", NULL, &folder, err);
	char **names, **to;

	if (!r)
		r = state_list(folder, &names, err);
	if (r)
		return r;
	to = names;
	for (char **name = names; *name; name++) {
		CLEANUP_FREE char *dir = io_format("%s/%s", folder, *name);

		if (dir && state_alive(dir)) {
			*to++ = *name;
			continue;
		}
		if (dir)
			state_sweep(dir, NULL);
		free(*name);
	}
	*to = NULL;
	*ret = names;
	return 0;
}

void vms_sweep_networks(void)
{
	char **names;

	if (!vms_network_names(&names, NULL))
		state_list_free(names);
}
