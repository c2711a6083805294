/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks of clusters. Root's daemon has them made by its helper, and the keeper started in them;
 * of a user's daemon they are the keeper's own, on this node alone. They are noted before they are
 * made, so that whoever is killed in between leaves nothing that is not known.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "node/alloc.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/store.h"
#include "tree/nodeset.h"
#include "vms/subnet.h"

#define VNI_MAX 0xffffff
#define NODES_MAX 65536u

enum step {
	STEP_NODES, /* links that are new */
	STEP_TAPS,  /* of VMs that are new */
	STEP_MAKE,
	STEP_KEEPER,
	STEP_UNDO,
};

struct network_making {
	struct cluster *c;
	struct reply *reply;
	struct helper_call *call;
	enum step step;
	bool fresh; /* noted by this request: taken back when it fails */
	uint32_t vni;
	json_t *lan;		/* {"parent", "vlan"}: it is the node's own, by macvtap; or NULL */
	json_t *gateway;	/* "10.78.0.1/24"; NULL: the network leads nowhere */
	json_t *subnet, *nodes; /* all of them, this one's first */
	json_t *more;		/* of these the new ones */
	json_t *taps;
	int code; /* of what is being undone */
	struct error why;
};

static void go(struct network_making *m);

static void making_free(struct network_making *m)
{
	m->c->making = NULL;
	helper_forget(&m->call);
	json_decref(m->lan);
	json_decref(m->gateway);
	json_decref(m->subnet);
	json_decref(m->nodes);
	json_decref(m->more);
	json_decref(m->taps);
	free(m);
}

static void finish(struct network_making *m, int code, const struct error *err)
{
	struct cluster *c = m->c;

	reply_send(m->reply, code, NULL, err);
	making_free(m);
	end_go_on(c);
}

void network_forget(struct cluster *c)
{
	struct error err;

	if (!c->making)
		return;
	error_set(&err, -ESHUTDOWN, "wispd ends");
	reply_send(c->making->reply, -ESHUTDOWN, NULL, &err);
	making_free(c->making);
}

void network_give_up(struct cluster *c)
{
	if (c->making && c->making->call)
		helper_kill(c->making->call);
}

/* -------- its steps -------- */

static json_t *job_of(struct network_making *m, const char *path, struct error *err)
{
	CLEANUP_FREE char *keeper = NULL;
	char id[17];
	json_t *job;

	switch (m->step) {
	case STEP_NODES:
		return json_pack("{s:s, s:s, s:O}", "op", "network-nodes", "path", path, "add",
				 m->more);
	case STEP_TAPS:
		return json_pack("{s:s, s:s, s:i, s:O*, s:O}", "op", "network-taps", "path", path,
				 "user", (int)m->c->user, "lan", m->lan, "add", m->taps);
	case STEP_MAKE:
		return json_pack("{s:s, s:s, s:I, s:O*, s:O*, s:O*, s:O, s:i, s:O}", "op",
				 "network-make", "path", path, "vni", (json_int_t)m->vni, "local",
				 m->lan ? NULL : json_array_get(m->nodes, 0), "gateway", m->gateway,
				 "lan", m->lan, "add", m->more, "user", (int)m->c->user, "taps",
				 m->taps);
	case STEP_UNDO:
		return json_pack("{s:s, s:s, s:s}", "op", "clean", "cluster", m->c->id, "network",
				 path);
	default:
		if (paths_program("wisp-keeper", &keeper, err))
			return NULL;
		cluster_network_id(m->c->id, m->vni, id);
		job = cluster_become(
			m->c, "keeper",
			json_pack("[s, s, s, O, s]", keeper, "start", m->c->id, m->subnet, id));
		json_object_set_new(job, "network", json_string(path));
		if (m->lan)
			json_object_set(job, "taps", m->taps);
		return job;
	}
}

static void fail(struct network_making *m, int code, const char *reason)
{
	m->code = error_set(&m->why, code, "%s", reason);
	if (!m->fresh) {
		finish(m, m->code, &m->why);
		return;
	}
	m->step = STEP_UNDO;
	go(m);
}

static void undone(struct network_making *m, int code, const char *reason)
{
	/* It stays noted, and the cluster's end removes it. */
	if (code)
		log_error(m->c->d->p.log, "network", "%s: %s", m->c->id, reason);
	else
		cluster_drop_network(m->c->d->store, m->c->id, NULL);
	finish(m, m->code, &m->why);
}

/* Of a network that is there. Who is on the nodes' own has no links. */
static enum step first_step(const struct network_making *m)
{
	return m->lan ? STEP_TAPS : STEP_NODES;
}

static void on_done(void *arg, int code, const char *reason)
{
	struct network_making *m = arg;
	struct error err = {""};

	m->call = NULL;
	if (m->step == STEP_UNDO) {
		undone(m, code, reason);
	} else if (m->step == first_step(m) && code == -ENOENT) {
		/* It was noted, but whoever made it was killed, or the machine began anew. */
		m->step = STEP_MAKE;
		json_decref(m->more);
		m->more = json_copy(m->nodes);
		json_array_remove(m->more, 0);
		go(m);
	} else if (code) {
		fail(m, code, reason);
	} else if (m->step != STEP_KEEPER) {
		m->step = m->step == STEP_NODES ? STEP_TAPS : STEP_KEEPER;
		go(m);
	} else {
		finish(m, cluster_set_nodes(m->c->d->store, m->c->id, m->nodes, &err), &err);
	}
}

static void go(struct network_making *m)
{
	static const struct helper_ops ops = {on_done, NULL};
	CLEANUP_FREE char *path = cluster_network_file(m->c);
	struct error err = {"out of memory"};
	json_t *job = path ? job_of(m, path, &err) : NULL;
	int r = job ? helper_start(&m->c->d->helpers, job, -1, &ops, m, &m->call, &err) : -ENOMEM;

	json_decref(job);
	if (r && m->step == STEP_UNDO)
		undone(m, r, err.text);
	else if (r)
		fail(m, r, err.text);
}

/* -------- the request -------- */

/* "10.0.0.1", or "10.0.0.1-10.0.0.9": nine of them. */
static int add_addresses(json_t *list, const char *text, struct error *err)
{
	CLEANUP_FREE char *first = strndup(text, strcspn(text, "-"));
	const char *dash = strchr(text, '-');
	uint32_t from, to;
	char address[16];

	if (!first || subnet_parse_ipv4(first, &from) ||
	    subnet_parse_ipv4(dash ? dash + 1 : first, &to) || to < from)
		return error_set(err, -EINVAL,
				 "\"nodes\": \"%s\" is not the IPv4 address of a node, nor "
				 "FIRST-LAST of several",
				 text);
	if (to - from >= NODES_MAX - json_array_size(list))
		return error_set(err, -E2BIG, "\"nodes\" are more than %u", NODES_MAX);
	for (uint32_t i = 0; i <= to - from; i++)
		json_array_append_new(list, json_string(subnet_format(from + i, address)));
	return 0;
}

/* Who was asked with all others finds its own by its place, and has it first. */
static int find_own(json_t *nodes, const char *places, uint32_t place, struct error *err)
{
	struct nodeset set = {0}, before = {0};
	int r = nodeset_parse(places, &set, err);
	uint32_t own = 0;

	if (r)
		return error_prefix(err, r, "\"places\"");
	if (nodeset_count(&set) != json_array_size(nodes) || !nodeset_has(&set, place))
		r = error_set(
			err, -EINVAL,
			"\"places\" (%s) are not those of the \"nodes\", or not this one's (%u)",
			places, place);
	if (!r && place)
		r = nodeset_slice(&set, 0, place - 1, &before);
	own = r ? 0 : nodeset_count(&before);
	nodeset_done(&before);
	nodeset_done(&set);
	if (own) {
		json_array_insert(nodes, 0, json_array_get(nodes, own));
		json_array_remove(nodes, own + 1);
	}
	return r;
}

/* All addresses, this node's own first. */
static int read_nodes(const struct network_making *m, const json_t *request, json_t *ret,
		      struct error *err)
{
	const json_t *nodes = json_object_get(request, "nodes"), *node;
	const char *places = json_string_value(json_object_get(request, "places"));
	size_t i;
	int r = 0;

	if (!json_is_array(nodes))
		return error_set(err, -EINVAL, "\"nodes\" has to be a list of addresses");
	json_array_foreach (nodes, i, node)
		if (!r)
			r = add_addresses(ret, json_string_value(node) ?: "", err);
	if (!r && places)
		r = find_own(ret, places, m->reply->place, err);
	if (!r && !m->c->d->p.networks && json_array_size(ret) > 1)
		r = error_set(err, -EPERM, "a network on several nodes needs root's wispd on each");
	return r;
}

/* The taps as src/vms/network.c opens them. */
static int read_taps(struct network_making *m, const struct subnet *subnet, const json_t *vms,
		     struct error *err)
{
	const json_t *vm;
	size_t i;

	json_array_foreach (vms, i, vm) {
		const char *name = json_string_value(json_object_get(vm, "name"));
		const char *text = json_string_value(json_object_get(vm, "address"));
		uint32_t address;
		int r = text ? subnet_parse_address(subnet, text, &address, err)
			     : error_set(err, -EINVAL, "it was reserved without an address");

		if (r)
			return error_prefix(err, r, "VM %s", name);
		json_array_append_new(m->taps, json_sprintf("vm%u", address - subnet->base));
	}
	return 0;
}

/* The addresses are those that the policy has let it have. */
static int check_subnet(const json_t *environment, const struct subnet *subnet, struct error *err)
{
	const char *text = json_string_value(
		json_object_get(json_object_get(environment, "network"), "subnet"));
	struct subnet own;
	int r = subnet_parse(text ?: "", &own, err);

	if (!r && (own.base != subnet->base || own.prefix != subnet->prefix))
		r = error_set(err, -EPERM, "\"subnet\": the environment's is %s", text);
	return r;
}

/* What the environment wants: a way out, by the bridge's address; or the node's own network. */
static int read_kind(struct network_making *m, const struct subnet *subnet, struct error *err)
{
	json_t *environment;
	char text[16];
	unsigned vlan;
	int r = cluster_environment(m->c->d->store, m->c->id, &environment, err);

	if (!r)
		r = check_subnet(environment, subnet, err);
	if (!r && admit_leads_out(environment))
		m->gateway = json_sprintf("%s/%u", subnet_format(subnet->base + 1, text),
					  subnet->prefix);
	if (!r && admit_on_lan(environment, &vlan))
		m->lan = json_pack("{s:s, s:i}", "parent", m->c->d->p.lan.parent ?: "", "vlan",
				   (int)vlan);
	json_decref(environment);
	return r;
}

static int read_request(struct network_making *m, const json_t *request, struct error *err)
{
	const json_t *vni = json_object_get(request, "vni");
	json_t *vms = NULL;
	const char *text = json_string_value(json_object_get(request, "subnet"));
	struct subnet subnet;
	int r;

	if (!json_is_integer(vni) || json_integer_value(vni) < 1 ||
	    json_integer_value(vni) > VNI_MAX)
		return error_set(err, -EINVAL, "\"vni\" has to be a number from 1 to %d", VNI_MAX);
	m->vni = (uint32_t)json_integer_value(vni);
	r = text ? subnet_parse(text, &subnet, err)
		 : error_set(err, -EINVAL, "\"subnet\" is missing");
	m->nodes = json_array();
	if (!r)
		r = read_kind(m, &subnet, err);
	if (!r)
		r = read_nodes(m, request, m->nodes, err);
	if (!r)
		r = cluster_addresses(m->c->d->store, m->c->id, &vms, err);
	m->subnet = json_incref(json_object_get(request, "subnet"));
	m->taps = json_array();
	if (!r)
		r = read_taps(m, &subnet, vms, err);
	json_decref(vms);
	return r;
}

/* Takes what is not there into the set of texts. False: it was there. */
static bool add_to_set(json_t *set, const json_t *text)
{
	const char *key = json_string_value(text);

	if (json_object_get(set, key))
		return false;
	json_object_set_new(set, key, json_true());
	return true;
}

/* The nodes that are new, behind those that are known; no more than one request may name. */
static int add_nodes(struct network_making *m, const json_t *known, struct error *err)
{
	json_t *all = json_copy((json_t *)known), *set = json_object(), *node;
	size_t i;

	json_array_foreach (known, i, node)
		add_to_set(set, node);
	m->more = json_array();
	json_array_foreach (m->nodes, i, node)
		if (add_to_set(set, node)) {
			json_array_append(m->more, node);
			json_array_append(all, node);
		}
	json_decref(set);
	json_decref(m->nodes);
	m->nodes = all;
	return json_array_size(all) > NODES_MAX
		       ? error_set(err, -E2BIG, "the network of %s has at most %d nodes", m->c->id,
				   NODES_MAX)
		       : 0;
}

/* What is there stays. */
static int join(struct network_making *m, const json_t *there, struct error *err)
{
	const json_t *known = json_object_get(there, "nodes");

	if (json_integer_value(json_object_get(there, "vni")) != m->vni ||
	    !json_equal(json_object_get(there, "subnet"), m->subnet))
		return error_set(err, -EEXIST, "%s has another network here: %s, VXLAN number %lld",
				 m->c->id, json_string_value(json_object_get(there, "subnet")),
				 (long long)json_integer_value(json_object_get(there, "vni")));
	if (!json_array_size(known) && json_array_size(m->nodes))
		return error_set(err, -EEXIST,
				 "the network of %s was made for this node alone (no \"nodes\")",
				 m->c->id);
	m->step = first_step(m);
	return add_nodes(m, known, err);
}

static int note(struct network_making *m, struct error *err)
{
	const struct cluster_network net = {m->vni, json_string_value(m->subnet), m->nodes};
	int r = cluster_add_network(m->c->d->store, m->c->id, &net, err);

	if (r)
		return r;
	m->fresh = true;
	m->step = STEP_MAKE;
	m->more = json_copy(m->nodes);
	json_array_remove(m->more, 0);
	return 0;
}

static int begin(struct network_making *m, const json_t *request, struct error *err)
{
	json_t *there = NULL;
	int r = read_request(m, request, err);

	if (!r)
		r = cluster_get_network(m->c->d->store, m->c->id, &there, err);
	if (!r)
		r = there ? join(m, there, err) : note(m, err);
	json_decref(there);
	return r;
}

void daemon_network(struct daemon *d, struct reply *reply, const json_t *request)
{
	struct network_making *m = NULL;
	struct cluster *c = NULL;
	struct error err = {""};
	int r = cluster_of_request(d, &reply->who, request, &c, &err);

	if (!r && c->making)
		r = error_set(&err, -EBUSY, "the network of %s is being made", c->id);
	if (!r) {
		m = calloc(1, sizeof(*m));
		r = m ? 0 : error_set(&err, -ENOMEM, "out of memory");
	}
	if (!r) {
		*m = (struct network_making){.c = c, .reply = reply};
		c->making = m;
		r = begin(m, request, &err);
	}
	if (!m) {
		reply_send(reply, r, NULL, &err);
	} else if (r || !d->p.networks) {
		finish(m, r, &err);
	} else {
		/* What is wrong with it the start of its VMs says. */
		group_make(c, &err);
		go(m);
	}
}
