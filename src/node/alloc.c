/* SPDX-License-Identifier: Apache-2.0 */
/* Claims and releases: what place.c found is what the store keeps. */

#include "node/alloc.h"

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "node/alloc-free.h"
#include "node/store.h"

static int take_number(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static int insert_cpus(struct alloc *a, const struct place_vm *at, int64_t vm, struct error *err)
{
	const struct topology *t = a->topology;
	int r = 0;

	for (unsigned i = 0; i < t->ncores; i++)
		for (unsigned k = 0; !r && at->cores[i] && k < t->cores[i].ncpus; k++)
			r = store_run(a->store, err, "INSERT INTO cpu VALUES (?, ?)", "ii",
				      (int64_t)t->cores[i].cpus[k], vm);
	return r;
}

static int insert_vm(struct alloc *a, const struct claim *claim, const struct placement *p,
		     unsigned v, int64_t now, struct error *err)
{
	const struct claim_vm *vm = &claim->vms[v];
	const struct topology *t = a->topology;
	int64_t id;
	int r = store_run(a->store, err,
			  "INSERT INTO vm (cluster, name, since, cpus, dedicated, cores, bound) "
			  "VALUES (?, ?, ?, ?, ?, ?, ?)",
			  "ttiiiii", claim->cluster, vm->name, now, (int64_t)vm->cpus,
			  (int64_t)vm->dedicated, (int64_t)vm->cores,
			  (int64_t)(vm->numa != CLAIM_NONE));

	id = store_last_id(a->store);
	if (!r)
		r = insert_cpus(a, &p->vms[v], id, err);
	for (unsigned n = 0; !r && n < t->nnodes; n++)
		if (p->vms[v].bytes[n])
			r = store_run(a->store, err, "INSERT INTO memory VALUES (?, ?, ?, ?)",
				      "iiii", id, (int64_t)t->nodes[n].id, (int64_t)vm->page_size,
				      (int64_t)p->vms[v].bytes[n]);
	for (unsigned i = 0; !r && i < t->ndevices; i++)
		if (p->devices[i] == (int)v)
			r = store_run(a->store, err, "INSERT INTO device VALUES (?, ?)", "ti",
				      t->devices[i].address, id);
	return r;
}

static int insert(struct alloc *a, const struct claim *claim, const struct placement *p,
		  int64_t now, int64_t until, struct error *err)
{
	int r = store_run(a->store, err,
			  "INSERT INTO cluster (id, user, state, since, until) VALUES (?, ?, "
			  "'reserved', ?, ?) ON CONFLICT (id) DO NOTHING",
			  "tiii", claim->cluster, (int64_t)claim->user, now, until);

	for (unsigned v = 0; !r && v < claim->nvms; v++)
		r = insert_vm(a, claim, p, v, now, err);
	if (!r)
		r = store_event(a->store, now, claim->cluster, NULL, "reserved", "", err);
	return r;
}

static int find(struct alloc *a, const struct claim *claim, struct placement **ret,
		json_t **missing, struct error *err)
{
	struct place_free f;
	int r = alloc_free(a, false, &f, err);

	if (r)
		return r;
	r = place(&f, claim, ret);
	if (r == -ENOMEM)
		error_set(err, r, "out of memory");
	else if (r)
		r = alloc_refuse(a, claim, &f, r, missing, err);
	place_free_done(&f);
	return r;
}

static int expire(struct alloc *a, int64_t now, struct error *err);

/* More of a cluster is fine, but it is its user's, and a VM is there once. */
static int check_new(struct alloc *a, const struct claim *claim, struct error *err)
{
	int64_t user = claim->user, there;
	int r = store_each(a->store, take_number, &user, err,
			   "SELECT user FROM cluster WHERE id = ?", "t", claim->cluster);

	if (!r && user != claim->user)
		r = error_set(err, -EEXIST, "%s has resources of this node already: another user's",
			      claim->cluster);
	for (unsigned v = 0; !r && v < claim->nvms; v++) {
		there = 0;
		r = store_each(a->store, take_number, &there, err,
			       "SELECT 1 FROM vm WHERE cluster = ? AND name = ?", "tt",
			       claim->cluster, claim->vms[v].name);
		if (!r && there)
			r = error_set(err, -EEXIST,
				      "VM %s of %s has resources of this node already",
				      claim->vms[v].name, claim->cluster);
	}
	return r;
}

static int claim_in_transaction(struct alloc *a, const struct claim *claim, int64_t now,
				int64_t until, json_t **missing, struct error *err)
{
	struct placement *p = NULL;
	int r = expire(a, now, err);

	r = r < 0 ? r : check_new(a, claim, err);
	if (!r)
		r = find(a, claim, &p, missing, err);
	if (!r)
		r = insert(a, claim, p, now, until, err);
	placement_destroy(p);
	return r;
}

int alloc_claim(struct alloc *a, const struct claim *claim, int64_t now, int64_t until,
		json_t **ret, json_t **missing, struct error *err)
{
	int r = topology_refresh(a->topology, err);

	*missing = NULL;
	if (!r)
		r = store_begin(a->store, err);
	if (r)
		return r;
	r = claim_in_transaction(a, claim, now, until, missing, err);
	if (!r)
		r = alloc_describe(a, claim->cluster, ret, err);
	r = store_end(a->store, r, err);
	if (r && r != -EBUSY && r != -E2BIG && *missing) {
		json_decref(*missing);
		*missing = NULL;
	}
	return r;
}

/* Runs one statement about a cluster (and VM) and, when it changed something, notes the event. */
static int change(struct alloc *a, const char *sql, const char *kinds, const char *cluster,
		  const char *vm, int64_t now, const char *what, struct error *err)
{
	int64_t changed = 0;
	int r = store_begin(a->store, err);

	if (r)
		return r;
	r = store_run(a->store, err, sql, kinds, cluster, vm);
	changed = r ? 0 : store_changes(a->store);
	if (changed)
		r = store_event(a->store, now, cluster, vm, what, "", err);
	r = store_end(a->store, r, err);
	return r ? r : changed > 0;
}

int alloc_confirm(struct alloc *a, const char *cluster, int64_t now, struct error *err)
{
	int r = change(a, "UPDATE cluster SET state = 'running', until = NULL WHERE id = ?", "t",
		       cluster, NULL, now, "running", err);

	if (!r)
		return error_set(err, -ENOENT, "%s has nothing reserved here (any more)", cluster);
	return r < 0 ? r : 0;
}

int alloc_release(struct alloc *a, const char *cluster, int64_t now, struct error *err)
{
	int r = change(a, "DELETE FROM cluster WHERE id = ?", "t", cluster, NULL, now, "released",
		       err);

	return r < 0 ? r : 0;
}

int alloc_release_vm(struct alloc *a, const char *cluster, const char *vm, int64_t now,
		     struct error *err)
{
	int r = change(a, "DELETE FROM vm WHERE cluster = ? AND name = ?", "tt", cluster, vm, now,
		       "released", err);

	return r < 0 ? r : 0;
}

int alloc_vm_ended(struct alloc *a, const char *cluster, const char *vm, int64_t now,
		   struct error *err)
{
	int r = change(a,
		       "DELETE FROM vm WHERE cluster = ? AND name = ? AND id NOT IN "
		       "(SELECT vm FROM device)",
		       "tt", cluster, vm, now, "released", err);

	return r < 0 ? r : 0;
}

static int expire(struct alloc *a, int64_t now, struct error *err)
{
	int64_t n;
	int r = store_run(
		a->store, err,
		"INSERT INTO event (at, cluster, what, text) SELECT ?1, id, 'expired', '' "
		"FROM cluster WHERE until <= ?1 AND NOT made",
		"i", now);

	if (!r)
		r = store_run(a->store, err, "DELETE FROM cluster WHERE until <= ? AND NOT made",
			      "i", now);
	n = r ? 0 : store_changes(a->store);
	return r ? r : (int)n;
}

int alloc_expire(struct alloc *a, int64_t now, struct error *err)
{
	int r = store_begin(a->store, err), n;

	if (r)
		return r;
	n = expire(a, now, err);
	r = store_end(a->store, n < 0 ? n : 0, err);
	return r ? r : n;
}

int alloc_shared(struct alloc *a, cpu_set_t *ret, struct error *err)
{
	struct place_free f;
	int r = alloc_free(a, false, &f, err);

	if (r)
		return r;
	CPU_ZERO(ret);
	for (unsigned i = 0; i < f.t->ncores; i++)
		for (unsigned k = 0; f.cores[i] && k < f.t->cores[i].ncpus; k++)
			CPU_SET(f.t->cores[i].cpus[k], ret);
	place_free_done(&f);
	return 0;
}

struct describe {
	struct alloc *a;
	json_t *vms;
	cpu_set_t cpus, shared;
	json_t *nodes, *devices;
	int64_t page_size;
	struct error *err;
};

static int add_cpu(const struct store_row *row, void *arg)
{
	struct describe *d = arg;

	CPU_SET(store_int(row, 0), &d->cpus);
	return 0;
}

static int add_memory(const struct store_row *row, void *arg)
{
	struct describe *d = arg;

	d->page_size = store_int(row, 1);
	return json_array_append_new(d->nodes,
				     json_pack("{s:I, s:I}", "node", (json_int_t)store_int(row, 0),
					       "memory", (json_int_t)store_int(row, 2)))
		       ? -ENOMEM
		       : 0;
}

static int add_device(const struct store_row *row, void *arg)
{
	struct describe *d = arg;

	return json_array_append_new(d->devices, json_string(store_text(row, 0))) ? -ENOMEM : 0;
}

static int add_vm(const struct store_row *row, void *arg)
{
	struct describe *d = arg;
	struct store *s = d->a->store;
	int64_t id = store_int(row, 0);
	char cpus[4096];
	int r;

	CPU_ZERO(&d->cpus);
	d->nodes = json_array();
	d->devices = json_array();
	r = store_each(s, add_cpu, d, d->err, "SELECT cpu FROM cpu WHERE vm = ?", "i", id);
	if (!r)
		r = store_each(
			s, add_memory, d, d->err,
			"SELECT node, page_size, bytes FROM memory WHERE vm = ? ORDER BY node", "i",
			id);
	if (!r)
		r = store_each(s, add_device, d, d->err,
			       "SELECT address FROM device WHERE vm = ? ORDER BY address", "i", id);
	format_cpulist(store_int(row, 3) ? &d->cpus : &d->shared, cpus, sizeof(cpus));
	if (json_array_append_new(d->vms, json_pack("{s:s, s:I, s:b, s:s, s:I, s:o, s:o}", "name",
						    store_text(row, 1), "vcpus",
						    (json_int_t)store_int(row, 2), "dedicated",
						    (int)store_int(row, 3), "cpus", cpus,
						    "page-size", (json_int_t)d->page_size, "nodes",
						    d->nodes, "devices", d->devices)))
		return -ENOMEM;
	return r;
}

static int add_cluster(const struct store_row *row, void *arg)
{
	json_t **ret = arg;

	*ret = json_pack("{s:s, s:I, s:s, s:I, s:I}", "cluster", store_text(row, 0), "user",
			 (json_int_t)store_int(row, 1), "state", store_text(row, 2), "since",
			 (json_int_t)store_int(row, 3), "until", (json_int_t)store_int(row, 4));
	return *ret ? 0 : -ENOMEM;
}

int alloc_describe(struct alloc *a, const char *cluster, json_t **ret, struct error *err)
{
	struct describe d = {.a = a, .err = err};
	json_t *all = NULL;
	int r = store_each(a->store, add_cluster, &all, err,
			   "SELECT id, user, state, since, until FROM cluster WHERE id = ?", "t",
			   cluster);

	if (!r && !all)
		return error_set(err, -ENOENT, "%s has no resources of this node", cluster);
	if (!r)
		r = alloc_shared(a, &d.shared, err);
	if (!r) {
		d.vms = json_array();
		json_object_set_new(all, "vms", d.vms);
		r = store_each(
			a->store, add_vm, &d, err,
			"SELECT id, name, cpus, dedicated FROM vm WHERE cluster = ? ORDER BY id",
			"t", cluster);
	}
	if (r) {
		json_decref(all);
		return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
	}
	*ret = all;
	return 0;
}
