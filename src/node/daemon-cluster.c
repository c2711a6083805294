/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters of which something was made here: who may have something done to them, and where. */

#include "node/daemon-cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "node/cluster.h"

struct cluster *cluster_known(const struct daemon *d, const char *id)
{
	for (struct cluster *c = d->clusters; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	return NULL;
}

int cluster_get(struct daemon *d, const char *id, struct cluster **ret, struct error *err)
{
	struct cluster *c = cluster_known(d, id);
	struct cluster_state state;
	int r;

	if (c) {
		*ret = c;
		return 0;
	}
	r = cluster_read(d->store, id, &state, err);
	if (!r)
		r = cluster_set_made(d->store, id, err);
	if (r)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	*c = (struct cluster){.next = d->clusters, .d = d, .user = state.user};
	snprintf(c->id, sizeof(c->id), "%s", id);
	d->clusters = c;
	*ret = c;
	return 0;
}

int cluster_of_request(struct daemon *d, const struct asker *who, const json_t *request,
		       struct cluster **ret, struct error *err)
{
	const char *id = json_string_value(json_object_get(request, "cluster"));
	struct cluster_state state;
	int r;

	if (!id)
		return error_set(err, -EINVAL, "\"cluster\" is missing");
	r = cluster_read(d->store, id, &state, err);
	if (r)
		return r;
	if (state.user != who->uid && !who->operator)
		return error_set(err, -EPERM, "cluster %s is another user's", id);
	if (state.ending)
		return error_set(err, -ESHUTDOWN, "cluster %s is being ended", id);
	return cluster_get(d, id, ret, err);
}

void cluster_destroy(struct cluster *c)
{
	struct cluster **at = &c->d->clusters;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	end_destroy(c);
	part_destroy(c);
	network_forget(c);
	json_decref(c->ready);
	free(c);
}

void clusters_done(struct daemon *d)
{
	while (d->clusters)
		cluster_destroy(d->clusters);
}

/* -------- where its things are -------- */

char *cluster_run_folder(const struct daemon *d, uid_t user)
{
	return d->p.users ? io_format("%s/%u", d->p.users, (unsigned)user) : NULL;
}

char *cluster_network_file(const struct cluster *c)
{
	return c->d->p.networks ? io_format("%s/%s", c->d->p.networks, c->id) : NULL;
}

/* Without a list nobody gets any: the VMs that need them then say so. */
json_t *cluster_all_devices(const struct cluster *c)
{
	json_t *devices = NULL;
	struct error err;

	if (cluster_devices(c->d->store, c->id, &devices, &err))
		log_warn(c->d->p.log, "cluster", "%s: %s", c->id, err.text);
	return devices;
}

json_t *cluster_become(const struct cluster *c, const char *part, json_t *argv)
{
	CLEANUP_FREE char *run = cluster_run_folder(c->d, c->user);
	CLEANUP_FREE char *log = run ? io_format("%s/%s.log", run, c->id) : NULL;

	return json_pack("{s:s, s:i, s:s*, s:s*, s:s*, s:s, s:s, s:o*, s:o}", "op", "become",
			 "user", (int)c->user, "run", run, "log", log, "cgroups",
			 c->grouped ? c->d->p.cgroups : NULL, "cluster", c->id, "part", part,
			 "devices", cluster_all_devices(c), "argv", argv);
}

void clusters_tell(struct daemon *d, json_t *event)
{
	for (struct cluster *c = d->clusters; c; c = c->next)
		cluster_event(c, json_deep_copy(event));
	json_decref(event);
}

void cluster_event(struct cluster *c, json_t *event)
{
	struct cluster_state state;

	if (event && !cluster_read(c->d->store, c->id, &state, NULL)) {
		json_object_set_new(event, "node", json_string(c->d->p.name));
		json_object_set_new(event, "cluster", json_string(c->id));
		daemon_event(c->d, c->user, state.session, event);
	}
	json_decref(event);
}
