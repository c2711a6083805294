/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes a network is linked to. */

#include "vms/links.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/keeper.h"
#include "net/link.h"
#include "net/vxlan.h"
#include "vms/heard.h"
#include "vms/record.h"
#include "vms/subnet.h"

#define DEVICE "nodes"
/* What others can make the keeper do: so much at once, then it rests. */
#define MESSAGES_AT_ONCE 64
#define NODES_AT_ONCE 8
#define REST_NS 100000000

struct links {
	struct net_keeper *keeper;
	uint32_t vni, local; /* local 0: not linked */
	uint32_t peer[LINKS_MAX];
	size_t npeers;
	struct heard heard;
	int watch;
	struct loop_source *source, *rest;
	void (*changed)(void *arg);
	void *arg;
};

int links_create(struct net_keeper *keeper, uint32_t vni, void (*changed)(void *arg), void *arg,
		 struct links **ret)
{
	struct links *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	*l = (struct links){
		.keeper = keeper, .vni = vni, .watch = -1, .changed = changed, .arg = arg};
	*ret = l;
	return 0;
}

uint32_t links_vni(uint64_t id)
{
	return id & 0xffffff ? id & 0xffffff : 1;
}

static size_t find(const struct links *l, uint32_t peer)
{
	size_t i = 0;

	while (i < l->npeers && l->peer[i] != peer)
		i++;
	return i;
}

static int add_peer(struct links *l, uint32_t peer, struct error *err)
{
	char text[16];
	int r;

	if (l->npeers == LINKS_MAX)
		return error_set(err, -ENOSPC, "a network is on at most %d other nodes", LINKS_MAX);
	r = vxlan_add_peer(DEVICE, peer, err);
	if (r)
		return r;
	l->peer[l->npeers++] = peer;
	log_info(net_keeper_log(l->keeper), "links", "linked to %s", subnet_format(peer, text));
	return 0;
}

static void cut(struct links *l)
{
	loop_remove(&l->source);
	loop_remove(&l->rest);
	cleanup_close_fd(&l->watch);
	l->watch = -1;
	if (l->local)
		link_remove(DEVICE, NULL);
	l->local = 0;
	l->npeers = 0;
	l->heard.believed = 0;
}

void links_destroy(struct links *l)
{
	if (!l)
		return;
	cut(l);
	free(l);
}

/*
 * A node that was linked to another one of ours sends to all; so its frames come here, and what
 * goes to all from here must go there. Whether there may be more to hear of now.
 */
static bool hear(struct links *l)
{
	unsigned messages = 0, nodes = 0;

	while (messages++ < MESSAGES_AT_ONCE && nodes < NODES_AT_ONCE) {
		uint32_t peer;
		int r = vxlan_heard(l->watch, DEVICE, &peer);

		if (r == -EAGAIN)
			return false;
		if (r) {
			loop_remove(&l->source);
			return false;
		}
		if (!peer || peer == l->local || find(l, peer) < l->npeers)
			continue;
		nodes += heard_believe(&l->heard, peer) && !add_peer(l, peer, NULL);
	}
	return true;
}

static void on_watch(void *arg, uint32_t events)
{
	struct links *l = arg;
	size_t before = l->npeers;

	/* What is not heard now waits in the socket. */
	if (hear(l) && !loop_set_timer(l->rest, REST_NS, 0))
		loop_modify_fd(l->source, 0);
	if (l->npeers != before)
		l->changed(l->arg);
}

static void on_rested(void *arg)
{
	struct links *l = arg;

	loop_modify_fd(l->source, EPOLLIN);
}

static int make_device(struct links *l, uint32_t local, struct error *err)
{
	int r = vxlan_watch(err);

	if (r < 0)
		return r;
	l->watch = r;
	r = net_keeper_vxlan(l->keeper, DEVICE, l->vni, local, err);
	if (!r) {
		l->local = local;
		r = loop_add_fd(net_keeper_loop(l->keeper), l->watch, EPOLLIN, on_watch, l,
				&l->source);
		if (!r)
			r = loop_add_timer(net_keeper_loop(l->keeper), on_rested, l, &l->rest);
		if (r)
			error_errno(err, r, "cannot watch the links");
	}
	if (r)
		cut(l);
	return r;
}

static int parse_address(const char *text, uint32_t *ret, struct error *err)
{
	if (subnet_parse_ipv4(text, ret) || !heard_is_node(*ret))
		return error_set(err, -EINVAL, "\"%s\" is not the IPv4 address of a node", text);
	return 0;
}

static int parse_peers(const json_t *request, uint32_t *ret, size_t *n, struct error *err)
{
	const json_t *list = json_object_get(request, "peers"), *peer;
	int r = 0;
	size_t i;

	*n = json_array_size(list);
	if (*n > LINKS_MAX)
		return error_set(err, -EINVAL, "a network is on at most %d other nodes", LINKS_MAX);
	json_array_foreach (list, i, peer)
		if (!r)
			r = parse_address(json_is_string(peer) ? json_string_value(peer) : "",
					  &ret[i], err);
	return r;
}

static int check_local(const struct links *l, uint32_t local, struct error *err)
{
	char text[16];

	if (!l->local || l->local == local)
		return 0;
	return error_set(err, -EBUSY,
			 "the network is linked by this machine's address %s: unlink "
			 "it first",
			 subnet_format(l->local, text));
}

int links_add(struct links *l, const json_t *request, json_t *answer, struct error *err)
{
	uint32_t local, peers[LINKS_MAX];
	json_t *added = json_array();
	bool fresh = !l->local;
	char text[16];
	size_t n;
	int r = parse_address(record_text(request, "local"), &local, err);

	if (!r)
		r = parse_peers(request, peers, &n, err);
	if (!r)
		r = check_local(l, local, err);
	if (!r && fresh)
		r = make_device(l, local, err);
	for (size_t i = 0; !r && i < n; i++) {
		heard_link(&l->heard, peers[i]);
		/* Our own address would send all that we send back to us. */
		if (peers[i] == local || find(l, peers[i]) < l->npeers)
			continue;
		r = add_peer(l, peers[i], err);
		json_array_append_new(added, json_string(subnet_format(peers[i], text)));
	}
	json_object_set_new(answer, "added", added);
	if (r && fresh)
		cut(l);
	l->changed(l->arg);
	return r;
}

int links_drop(struct links *l, const json_t *request, bool undone, struct error *err)
{
	uint32_t peers[LINKS_MAX];
	size_t n;
	int r = parse_peers(request, peers, &n, err);

	if (r)
		return r;
	for (size_t i = 0; !r && i < n; i++) {
		size_t at = find(l, peers[i]);

		/* It goes on sending until it is told as well. */
		if (!undone)
			heard_unlink(&l->heard, peers[i]);
		if (at == l->npeers)
			continue;
		r = vxlan_remove_peer(DEVICE, peers[i], err);
		memmove(&l->peer[at], &l->peer[at + 1], (--l->npeers - at) * sizeof(l->peer[0]));
	}
	if (!n || !l->npeers)
		cut(l);
	if (!n)
		l->heard = (struct heard){0};
	l->changed(l->arg);
	return r;
}

bool links_any(const struct links *l)
{
	return l->local;
}

json_t *links_nodes(const struct links *l)
{
	json_t *nodes = json_array();
	char text[16];

	if (l->local)
		json_array_append_new(nodes, json_string(subnet_format(l->local, text)));
	for (size_t i = 0; i < l->npeers; i++)
		json_array_append_new(nodes, json_string(subnet_format(l->peer[i], text)));
	return nodes;
}
