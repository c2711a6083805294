/* SPDX-License-Identifier: Apache-2.0 */
/* What a restart has to know of the cluster that was saved. */

#include "cli/job-former.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "cli/cmd-cluster.h"
#include "job/folder.h"
#include "job/manifest.h"
#include "job/nodelist.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define ENDS_MS 5000 /* that a coordinator takes which answers no more */
#define LOOK_MS 100

/* -------- who had its VMs, or may have got them -------- */

static bool are_texts(const json_t *list)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (!json_is_string(item))
			return false;
	return json_is_array(list);
}

static void add_holder(json_t *seen, json_t *list, const char *name)
{
	if (json_object_get(seen, name))
		return;
	json_object_set_new(seen, name, json_true());
	json_array_append_new(list, json_string(name));
}

/*
 * Where its VMs were then, and all of its nodes that may have VMs: VMs move after a checkpoint, to
 * no other nodes than these, and who knows where they are now may be dead.
 */
static json_t *holders(const struct job_manifest *m, const json_t *spec)
{
	bool self = !json_is_false(json_object_get(spec, "self"));
	json_t *seen = json_object(), *list = json_array();
	const json_t *node;
	char name[64];
	size_t i;

	for (i = 0; i < m->vms; i++)
		add_holder(seen, list, m->vm[i].node);
	json_array_foreach (json_object_get(spec, "nodes"), i, node) {
		nodelist_name(json_string_value(node), name, sizeof(name));
		if (i || self)
			add_holder(seen, list, name);
	}
	json_decref(seen);
	return list;
}

/* Their names; each has to be a holder's. */
static int take_lost(const json_t *lost, const json_t *nodes, json_t *names, struct error *err)
{
	const json_t *entry;
	char name[64];
	size_t i;

	json_array_foreach (lost, i, entry) {
		nodelist_name(json_string_value(entry), name, sizeof(name));
		if (nodelist_find(nodes, name) < 0)
			return error_set(err, -EINVAL,
					 "--lost %s: no VM was there: it is not one of the nodes "
					 "that the cluster had",
					 name);
		json_array_append_new(names, json_string(name));
	}
	return 0;
}

int job_former(const struct job_manifest *m, const json_t *lost, json_t **ret, struct error *err)
{
	const char *id = json_string_value(json_object_get(m->report, "id"));
	const json_t *spec = json_object_get(m->report, "spec");
	json_t *nodes, *names;
	int r;

	if (!id || !are_texts(json_object_get(spec, "nodes")))
		return error_set(err, -ENODATA,
				 "it does not say which cluster it is of, and at which nodes");
	nodes = holders(m, spec);
	names = json_array();
	r = take_lost(lost, nodes, names, err);
	if (!r)
		*ret = json_pack("{s:s, s:O, s:O}", "id", id, "nodes", nodes, "lost", names);
	json_decref(nodes);
	json_decref(names);
	return r;
}

/* -------- the way to them -------- */

void job_former_nodes(json_t *spec, json_t *nodes)
{
	const json_t *former = json_object_get(spec, "former");
	const json_t *lost = json_object_get(former, "lost");
	const json_t *then = json_object_get(spec, "nodes"), *name;
	json_int_t others = 0;
	size_t i;

	json_array_foreach (json_object_get(former, "nodes"), i, name) {
		const char *text = json_string_value(name);
		int place = nodelist_find(then, text);

		if (nodelist_find(nodes, text) >= 0 || nodelist_find(lost, text) >= 0)
			continue;
		json_array_append(nodes,
				  place < 0 ? (json_t *)name : json_array_get(then, (size_t)place));
		others++;
	}
	json_object_set_new(spec, "others", json_integer(others));
}

/* -------- its coordinator -------- */

/* One that ends by itself just then answers no more, and need not be stopped: what failed is fine.
 */
static int unless_ended(const char *folder, int r)
{
	for (unsigned i = 0; r && i < ENDS_MS / LOOK_MS; i++) {
		if (!folder_is_alive(folder))
			return 0;
		poll(NULL, 0, LOOK_MS);
	}
	return r;
}

int job_former_stop(const json_t *spec, bool stop, struct error *err)
{
	const char *name = json_string_value(json_object_get(spec, "name"));
	const char *job = json_string_value(json_object_get(spec, "job")), *its;
	CLEANUP_FREE char *folder = NULL;
	json_t *status = NULL;
	bool same;
	int r = folder_path(name, &folder, err);

	if (r || !folder_is_alive(folder))
		return r;
	r = cluster_ask(name, json_pack("{s:s}", "op", "status"), &status, err);
	if (r || !status)
		return unless_ended(folder, r);
	its = json_string_value(json_object_get(status, "job"));
	same = its && !strcmp(its, job);
	json_decref(status);
	if (!same) /* another cluster of that name: the coordinator says so */
		return 0;
	if (stop)
		return unless_ended(folder, cluster_stop(name, true, err));
	return error_set(err, -EBUSY,
			 "cluster %s, of which this is a checkpoint, still runs on this machine: "
			 "--stop ends it first (so does wisp cluster stop %s)",
			 name, name);
}
