/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters in the store. */

#include "node/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/digest.h"
#include "lib/error.h"
#include "node/alloc.h"
#include "node/store.h"

/* -------- its state -------- */

static int take_state(const struct store_row *row, void *arg)
{
	struct cluster_state *c = arg;
	const char *session = store_text(row, 1);

	c->user = (unsigned)store_int(row, 0);
	snprintf(c->session, sizeof(c->session), "%s", session ? session : "");
	c->made = store_int(row, 2);
	c->ending = store_int(row, 3);
	c->running = store_int(row, 4);
	return 1;
}

int cluster_read(struct store *s, const char *cluster, struct cluster_state *ret, struct error *err)
{
	int r = store_each(s, take_state, ret, err,
			   "SELECT user, session, made, ending, state = 'running' FROM cluster "
			   "WHERE id = ?",
			   "t", cluster);

	if (!r)
		return error_set(err, -ENOENT, "cluster %s has no resources of this node", cluster);
	return r < 0 ? r : 0;
}

int cluster_set_made(struct store *s, const char *cluster, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET made = 1 WHERE id = ?", "t", cluster);
}

int cluster_set_ending(struct store *s, const char *cluster, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET ending = 1 WHERE id = ?", "t", cluster);
}

int cluster_set_dir(struct store *s, const char *cluster, const char *vm, const char *dir,
		    struct error *err)
{
	return store_run(s, err, "UPDATE vm SET dir = ?3 WHERE cluster = ?1 AND name = ?2", "ttt",
			 cluster, vm, dir);
}

/* -------- what it is -------- */

static int keep_all(struct store *s, const char *cluster, const char *environment,
		    const char *image, const json_t *vms, int64_t save_every, struct error *err)
{
	int r = store_run(s, err,
			  "UPDATE cluster SET environment = ?2, image = ?3, "
			  "save_every = nullif(?4, 0) WHERE id = ?1",
			  "ttti", cluster, environment, image, save_every);
	const json_t *vm;
	size_t i;

	json_array_foreach (vms, i, vm)
		if (!r)
			r = store_run(s, err,
				      "UPDATE vm SET address = ?3 WHERE cluster = ?1 AND name = ?2",
				      "ttt", cluster,
				      json_string_value(json_object_get(vm, "name")),
				      json_string_value(json_object_get(vm, "address")));
	return r;
}

int cluster_keep(struct store *s, const char *cluster, const json_t *environment, const char *image,
		 const json_t *vms, int64_t save_every, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(environment, JSON_COMPACT | JSON_SORT_KEYS);
	int r = text ? store_begin(s, err) : error_set(err, -ENOMEM, "out of memory");

	return r ? r : store_end(s, keep_all(s, cluster, text, image, vms, save_every, err), err);
}

static int take_digest(const struct store_row *row, void *arg)
{
	const char *text = store_text(row, 0);

	snprintf(arg, DIGEST_TEXT, "%s", text ? text : "");
	return 1;
}

int cluster_check_image(struct store *s, const char *cluster, const char *reference,
			struct error *err)
{
	const char *at = reference ? strchr(reference, '@') : NULL;
	char digest[DIGEST_TEXT] = "";
	int r = store_each(s, take_digest, digest, err, "SELECT image FROM cluster WHERE id = ?",
			   "t", cluster);

	if (r < 0 || !*digest || (at && !strncmp(at, "@sha256:", 8) && !strcmp(at + 8, digest)))
		return r < 0 ? r : 0;
	return error_set(err, -EPERM,
			 "cluster %s was reserved for the image sha256:%s, and is to run %s: name "
			 "that one, NAME@sha256:DIGEST, or reserve it anew",
			 cluster, digest, reference ? reference : "none");
}

/* -------- its network -------- */

static int take_text(const struct store_row *row, void *arg)
{
	snprintf(arg, LEASE_SESSION, "%s", store_text(row, 0));
	return 0;
}

static int insert_network(struct store *s, const char *cluster, const struct cluster_network *net,
			  const char *nodes, struct error *err)
{
	char holder[LEASE_SESSION] = "";
	int r = store_each(s, take_text, holder, err, "SELECT cluster FROM network WHERE vni = ?",
			   "i", (int64_t)net->vni);

	if (!r && holder[0])
		return error_set(err, -EEXIST, "VXLAN number %u is that of cluster %s on this node",
				 net->vni, holder);
	return r ? r
		 : store_run(s, err, "INSERT INTO network VALUES (?, ?, ?, ?)", "titt", cluster,
			     (int64_t)net->vni, net->subnet, nodes);
}

int cluster_add_network(struct store *s, const char *cluster, const struct cluster_network *net,
			struct error *err)
{
	CLEANUP_FREE char *nodes = json_dumps(net->nodes, JSON_COMPACT);
	int r = nodes ? store_begin(s, err) : error_set(err, -ENOMEM, "out of memory");

	return r ? r : store_end(s, insert_network(s, cluster, net, nodes, err), err);
}

int cluster_set_nodes(struct store *s, const char *cluster, const json_t *nodes, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(nodes, JSON_COMPACT);

	return text ? store_run(s, err, "UPDATE network SET nodes = ?2 WHERE cluster = ?1", "tt",
				cluster, text)
		    : error_set(err, -ENOMEM, "out of memory");
}

int cluster_drop_network(struct store *s, const char *cluster, struct error *err)
{
	return store_run(s, err, "DELETE FROM network WHERE cluster = ?", "t", cluster);
}

static int take_network(const struct store_row *row, void *arg)
{
	json_t **ret = arg;

	*ret = json_pack("{s:I, s:s, s:o}", "vni", (json_int_t)store_int(row, 0), "subnet",
			 store_text(row, 1), "nodes", json_loads(store_text(row, 2), 0, NULL));
	return *ret ? 0 : -EBADMSG;
}

int cluster_get_network(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	int r;

	*ret = NULL;
	r = store_each(s, take_network, ret, err,
		       "SELECT vni, subnet, nodes FROM network WHERE cluster = ?", "t", cluster);
	return r == -EBADMSG
		       ? error_set(err, r, "the network of %s in the database is damaged", cluster)
		       : r;
}

/* FNV-1a; the number is its low 24 bits, as with all networks of VMs. */
void cluster_network_id(const char *cluster, uint32_t vni, char ret[17])
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (const char *c = cluster; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
	snprintf(ret, 17, "%010llx%06x", (unsigned long long)hash >> 24, vni & 0xffffff);
}

/* -------- lists -------- */

static int add_name(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_string(store_text(row, 0))) ? -ENOMEM : 0;
}

static int add_vm(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_pack("[s, s, s?, I]", store_text(row, 0),
						    store_text(row, 1), store_text(row, 2),
						    (json_int_t)store_int(row, 3)))
		       ? -ENOMEM
		       : 0;
}

static int take_vm(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_pack("{s:s, s:s*}", "name", store_text(row, 0),
						    "address", store_text(row, 1)))
		       ? -ENOMEM
		       : 0;
}

static int finish(json_t *list, int r, json_t **ret, struct error *err)
{
	if (r)
		json_decref(list);
	else
		*ret = list;
	return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
}

int cluster_running(struct store *s, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_vm, list, err,
				 "SELECT v.cluster, v.name, v.dir, c.user FROM vm v JOIN cluster c "
				 "ON c.id = v.cluster WHERE v.dir IS NOT NULL",
				 ""),
		      ret, err);
}

int cluster_unknown(struct store *s, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_vm, list, err,
				 "SELECT v.cluster, v.name, v.dir, c.user FROM vm v JOIN cluster c "
				 "ON c.id = v.cluster WHERE v.dir IS NULL AND c.made",
				 ""),
		      ret, err);
}

int cluster_addresses(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, take_vm, list, err,
				 "SELECT name, address FROM vm WHERE cluster = ? ORDER BY id", "t",
				 cluster),
		      ret, err);
}

int cluster_vms_running(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_name, list, err,
				 "SELECT name FROM vm WHERE cluster = ? AND dir IS NOT NULL", "t",
				 cluster),
		      ret, err);
}

int cluster_vms(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_name, list, err,
				 "SELECT name FROM vm WHERE cluster = ? ORDER BY id", "t", cluster),
		      ret, err);
}

int cluster_all_vms(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_name, list, err,
				 "SELECT name FROM vm WHERE cluster = ?1 UNION "
				 "SELECT vm FROM usage WHERE cluster = ?1",
				 "t", cluster),
		      ret, err);
}

int cluster_devices(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_name, list, err,
				 "SELECT address FROM device WHERE vm IN "
				 "(SELECT id FROM vm WHERE cluster = ?1) ORDER BY address",
				 "t", cluster),
		      ret, err);
}

int cluster_all_made(struct store *s, json_t **ret, struct error *err)
{
	json_t *list = json_array();

	return finish(list,
		      store_each(s, add_name, list, err, "SELECT id FROM cluster WHERE made", ""),
		      ret, err);
}

int cluster_set_saved(struct store *s, const char *cluster, int64_t now, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET saved = ?2 WHERE id = ?1", "ti", cluster, now);
}

/* A walltime is in milliseconds, or "off". */
#define WALLTIME "json_extract(environment, '$.walltime')"
#define RUNS "EXISTS (SELECT 1 FROM vm WHERE cluster = cluster.id AND dir IS NOT NULL)"

static int add_due(const struct store_row *row, void *arg)
{
	return json_object_set_new(arg, store_text(row, 0), json_string(store_text(row, 1)))
		       ? -ENOMEM
		       : 0;
}

int cluster_due(struct store *s, int64_t now, unsigned grace, json_t **ret, struct error *err)
{
	json_t *all = json_object();

	return finish(
		all,
		store_each(s, add_due, all, err,
			   "SELECT id, CASE WHEN ending THEN 'its end has begun' "
			   "WHEN until <= ?1 THEN 'nobody has come back for it' "
			   "WHEN typeof(" WALLTIME ") = 'integer' AND "
			   "since + " WALLTIME " / 1000 + ?2 <= ?1 THEN 'its walltime is over' "
			   "WHEN saved + 2 * save_every + ?3 <= ?1 AND " RUNS
			   " THEN 'a rule of this node wants a checkpoint every ' || save_every || "
			   "' s (checkpoint.interval), and for ' || (?1 - saved) || ' s there was "
			   "none' "
			   "END AS why FROM cluster WHERE made AND why IS NOT NULL",
			   "iii", now, (int64_t)grace, (int64_t)CLUSTER_SAVE_GRACE),
		ret, err);
}

/* -------- setup -------- */

json_t *cluster_grants(const json_t *lease)
{
	json_t *all = json_object(), *vm;
	size_t i;

	json_array_foreach (json_object_get(lease, "vms"), i, vm) {
		json_t *grant = json_copy(vm);

		json_object_del(grant, "name");
		json_object_set_new(all, json_string_value(json_object_get(vm, "name")), grant);
	}
	return all;
}

static int take_environment(const struct store_row *row, void *arg)
{
	const char *text = store_text(row, 0);

	*(json_t **)arg = json_loads(text ? text : "{}", 0, NULL);
	return *(json_t **)arg ? 0 : -EBADMSG;
}

int cluster_check_environment(struct store *s, const char *cluster, const json_t *environment,
			      struct error *err)
{
	json_t *there = NULL;
	int r = store_each(s, take_environment, &there, err,
			   "SELECT environment FROM cluster WHERE id = ?", "t", cluster);

	if (!r && !json_equal(there, environment))
		r = error_set(err, -EEXIST,
			      "%s has resources of this node already, for another "
			      "environment",
			      cluster);
	json_decref(there);
	return r;
}

/* "lu" of "lu-3f2a9c01". */
static int name_length(const char *cluster)
{
	const char *dash = strrchr(cluster, '-');

	return dash && dash > cluster ? (int)(dash - cluster) : (int)strlen(cluster);
}

int cluster_environment(struct store *s, const char *cluster, json_t **ret, struct error *err)
{
	int r;

	*ret = NULL;
	r = store_each(s, take_environment, ret, err,
		       "SELECT environment FROM cluster WHERE id = ?", "t", cluster);
	return r == -EBADMSG ? error_set(err, r, "the environment of %s in the database is damaged",
					 cluster)
			     : r;
}

static int read_setup(struct alloc *a, const char *cluster, json_t **vms, json_t **environment,
		      json_t **network, json_t **lease, struct error *err)
{
	int r = cluster_get_network(a->store, cluster, network, err);

	if (!r && !*network)
		r = error_set(err, -EAGAIN, "%s has no network here yet: \"network\" comes first",
			      cluster);
	if (!r)
		r = cluster_environment(a->store, cluster, environment, err);
	if (!r)
		r = cluster_addresses(a->store, cluster, vms, err);
	if (!r)
		r = alloc_describe(a, cluster, lease, err);
	return r;
}

int cluster_setup(struct alloc *a, const char *cluster, json_t **ret, struct error *err)
{
	json_t *vms = NULL, *environment = NULL, *network = NULL, *lease = NULL;
	int r = read_setup(a, cluster, &vms, &environment, &network, &lease, err);
	char id[17];

	if (!r) {
		cluster_network_id(cluster, json_integer_value(json_object_get(network, "vni")),
				   id);
		*ret = json_pack("{s:s, s:s%, s:O, s:o, s:O, s:{s:s, s:O, s:s}}", "cluster",
				 cluster, "name", cluster, (size_t)name_length(cluster),
				 "environment", environment, "grants", cluster_grants(lease), "vms",
				 vms, "network", "name", cluster, "subnet",
				 json_object_get(network, "subnet"), "id", id);
		r = *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	json_decref(vms);
	json_decref(environment);
	json_decref(network);
	json_decref(lease);
	return r;
}
