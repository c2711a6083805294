/* SPDX-License-Identifier: Apache-2.0 */
/* What a node says of itself, its clusters and its past. */

#include <errno.h>
#include <string.h>

#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "node/account.h"
#include "node/daemon.h"
#include "node/lease.h"
#include "node/store.h"
#include "node/topology.h"

static json_t *topology_json(const struct topology *t)
{
	json_t *nodes = json_array();
	unsigned sockets = 0, threads = 0;

	for (unsigned i = 0; i < t->nnodes; i++)
		json_array_append_new(nodes, json_pack("{s:i, s:I}", "node", t->nodes[i].id,
						       "memory", (json_int_t)t->nodes[i].memory));
	for (unsigned i = 0; i < t->ncores; i++) {
		unsigned k = 0;

		while (t->cores[k].socket != t->cores[i].socket)
			k++;
		sockets += k == i;
		threads += t->cores[i].ncpus;
	}
	return json_pack("{s:i, s:i, s:i, s:o}", "sockets", sockets, "cores", t->ncores, "threads",
			 threads, "nodes", nodes);
}

static int take_int(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static int free_json(struct daemon *d, json_t **ret, struct error *err)
{
	int64_t used = 0;
	uint64_t all = 0;
	cpu_set_t shared;
	char cpus[4096];
	int r = alloc_shared(&d->alloc, &shared, err);

	if (!r)
		r = store_each(d->store, take_int, &used, err, "SELECT sum(bytes) FROM memory", "");
	if (r)
		return r;
	for (unsigned i = 0; i < d->p.topology->nnodes; i++)
		all += d->p.topology->nodes[i].memory;
	*ret = json_pack("{s:i, s:s, s:I}", "threads", CPU_COUNT(&shared), "cpus",
			 format_cpulist(&shared, cpus, sizeof(cpus)), "memory",
			 (json_int_t)(all - (uint64_t)used));
	return 0;
}

int daemon_facts(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		 struct error *err)
{
	CLEANUP_FREE char *draining = NULL;
	char policy[DIGEST_TEXT];
	json_t *have = NULL;
	int r = lease_draining(d->store, &draining, err);

	if (!r)
		r = admit_policy_digest(d->p.admit.policy, policy, err);
	if (!r)
		r = free_json(d, &have, err);
	if (r)
		return r;
	*ret = json_pack("{s:s, s:s?, s:O, s:s, s:i, s:s, s:s?, s:o, s:o, s:O}", "name", d->p.name,
			 "type", d->p.admit.type, "labels", d->p.labels, "version", WISP_VERSION,
			 "protocol", 1, "policy", policy, "draining", draining, "topology",
			 topology_json(d->p.topology), "free", have, "health", d->health);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* -------- clusters -------- */

static int take_name(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_string(store_text(row, 0))) ? -ENOMEM : 0;
}

/* -1: of all users. */
static int names(struct daemon *d, int64_t user, json_t *ret, struct error *err)
{
	return store_each(d->store, take_name, ret, err,
			  "SELECT id FROM cluster WHERE ?1 < 0 OR user = ?1 ORDER BY since, id",
			  "i", user);
}

int daemon_list(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		struct error *err)
{
	bool all = json_is_true(json_object_get(request, "all"));
	json_t *list, *clusters, *name;
	CLEANUP_FREE char *draining = NULL;
	size_t i;
	int r;

	if (all && !who->operator)
		return error_set(err, -EPERM, "only operators see the clusters of all users");
	list = json_array();
	clusters = json_array();
	r = names(d, all ? -1 : (int64_t)who->uid, list, err);
	if (!r)
		r = lease_draining(d->store, &draining, err);
	json_array_foreach (list, i, name) {
		json_t *cluster = NULL;

		if (!r)
			r = alloc_describe(&d->alloc, json_string_value(name), &cluster, err);
		if (!r)
			json_array_append_new(clusters, cluster);
	}
	json_decref(list);
	*ret = r ? NULL
		 : json_pack("{s:s, s:s?, s:O}", "name", d->p.name, "draining", draining,
			     "clusters", clusters);
	json_decref(clusters);
	return r;
}

/* -------- records -------- */

static int read_time(const json_t *request, const char *key, int64_t *ret, struct error *err)
{
	const json_t *value = json_object_get(request, key);

	if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
		return error_set(err, -EINVAL, "\"%s\" has to be seconds since 1970", key);
	*ret = json_integer_value(value);
	return 0;
}

int daemon_account(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	const json_t *user = json_object_get(request, "user");
	struct account_query query = {
		.cluster = json_string_value(json_object_get(request, "cluster")),
		.user = user	       ? json_integer_value(user)
			: who->operator? -1
				       : (int64_t)who->uid};
	json_t *list = NULL;
	int r = 0;

	if (user && (!json_is_integer(user) || query.user < 0))
		r = error_set(err, -EINVAL, "\"user\" has to be a user's number");
	if (!r && query.user != (int64_t)who->uid && !who->operator)
		r = error_set(err, -EPERM, "only operators see the records of other users");
	if (!r)
		r = read_time(request, "since", &query.from, err);
	if (!r)
		r = read_time(request, "until", &query.to, err);
	if (!r)
		r = account_list(d->store, &query, &list, err);
	if (!r)
		*ret = json_pack("{s:o}", "records", list);
	return r;
}
