/* SPDX-License-Identifier: Apache-2.0 */
/* The way to VMs of clusters: their coordinator tells where they are, and their daemon connects. */

#include "cli/cluster-agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-cluster.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/tunnel.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/* VM k of cluster lu is lu-k; a cluster's name may end like that as well. */
static int ask_info(const char *name, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *cluster = strdup(name);
	char *dash = cluster ? strrchr(cluster, '-') : NULL;
	int r = cluster_ask(name, json_pack("{s:s}", "op", "exec-info"), ret, err);

	if (r != -ENOENT || !dash)
		return r;
	*dash = 0;
	return cluster_ask(cluster, json_pack("{s:s}", "op", "exec-info"), ret, err);
}

static const json_t *find_vm(const json_t *info, const char *name)
{
	const json_t *vms = json_object_get(info, "vms"), *vm;
	size_t i;

	if (!strcmp(text(info, "name"), name))
		return json_array_get(vms, 0);
	json_array_foreach (vms, i, vm)
		if (!strcmp(text(vm, "name"), name))
			return vm;
	return NULL;
}

int cluster_agent(const char *name, struct error *err)
{
	json_t *info = NULL, *request;
	const json_t *vm;
	int fd = -1, r = ask_info(name, &info, err);

	if (r)
		return r;
	vm = find_vm(info, name);
	if (!vm) {
		r = error_set(err, -ENOENT, "cluster %s has no VM %s", text(info, "name"), name);
	} else {
		request = json_pack("{s:s, s:s, s:s, s:s, s:s}", "op", "connect", "node",
				    text(vm, "entry"), "cluster", text(info, "id"), "vm",
				    text(vm, "name"), "what", "agent");
		r = tunnel_open(text(info, "socket"), request, &fd, err);
		json_decref(request);
	}
	json_decref(info);
	return r < 0 ? r : fd;
}
