/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs of the helper: the network of a cluster, which root makes (net/fabric.h). */

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "net/fabric.h"
#include "net/lan.h"
#include "node/helper.h"

static int read_address(const char *text, uint32_t *ret, struct error *err)
{
	struct in_addr in;

	if (!text || inet_pton(AF_INET, text, &in) != 1)
		return error_set(err, -EINVAL, "\"%s\" is not the IPv4 address of a node",
				 text ? text : "");
	*ret = ntohl(in.s_addr);
	return 0;
}

/* Of a list of texts that may not be there; the caller's. */
static int read_addresses(const json_t *job, const char *key, uint32_t **ret, size_t *n,
			  struct error *err)
{
	const json_t *list = json_object_get(job, key), *item;
	CLEANUP_FREE uint32_t *all = calloc(json_array_size(list) + 1, sizeof(*all));
	size_t i;
	int r = all ? 0 : error_set(err, -ENOMEM, "out of memory");

	json_array_foreach (list, i, item)
		if (!r)
			r = read_address(json_string_value(item), &all[i], err);
	if (r)
		return r;
	*n = json_array_size(list);
	*ret = take_ptr(all);
	return 0;
}

static int add_nodes(const json_t *job, const char *path, struct error *err)
{
	CLEANUP_FREE uint32_t *nodes = NULL;
	size_t n;
	int r = read_addresses(job, "add", &nodes, &n, err);

	return r || !n ? r : fabric_add_nodes(path, nodes, n, err);
}

static int remove_nodes(const json_t *job, const char *path, struct error *err)
{
	CLEANUP_FREE uint32_t *nodes = NULL;
	size_t n;
	int r = read_addresses(job, "remove", &nodes, &n, err);

	return r || !n ? r : fabric_remove_nodes(path, nodes, n, err);
}

static uid_t user_of(const json_t *job)
{
	const json_t *user = json_object_get(job, "user");

	return json_is_integer(user) ? (uid_t)json_integer_value(user) : (uid_t)-1;
}

/* Of "lan"; false: the job has none. */
static bool read_lan(const json_t *job, struct lan *ret)
{
	const json_t *lan = json_object_get(job, "lan");

	*ret = (struct lan){.parent = helper_text(lan, "parent"),
			    .vlan = (unsigned)json_integer_value(json_object_get(lan, "vlan"))};
	return ret->parent;
}

static int add_tap(const json_t *job, const char *path, const char *name, struct error *err)
{
	struct lan lan;

	return read_lan(job, &lan) ? fabric_add_macvtap(path, &lan, name, err)
				   : fabric_add_tap(path, name, user_of(job), err);
}

static int each_tap(const json_t *job, const char *list, const char *path, bool add,
		    struct error *err)
{
	const json_t *names = json_object_get(job, list);
	const json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (names, i, item) {
		const char *name = json_string_value(item);

		if (!name)
			r = error_set(err, -EINVAL, "a tap's name is no text");
		else if (add)
			r = add_tap(job, path, name, err);
		else
			r = fabric_remove_tap(path, name, err);
		if (r)
			break;
	}
	return r;
}

/* "10.78.0.1/24" */
static int lead_out(const char *path, const char *gateway, struct error *err)
{
	const char *slash = strchr(gateway, '/');
	CLEANUP_FREE char *text = slash ? strndup(gateway, slash - gateway) : NULL;
	unsigned prefix;
	uint32_t address = 0;
	int r = parse_uint(slash ? slash + 1 : "", "prefix of the gateway", 8, 30, &prefix, err);

	if (!r)
		r = read_address(text, &address, err);
	return r ? r : fabric_lead_out(path, address, prefix, err);
}

int helper_network_make(const json_t *job, struct error *err)
{
	const json_t *vni = json_object_get(job, "vni");
	const char *path, *local = helper_text(job, "local");
	const char *gateway = helper_text(job, "gateway");
	uint32_t address = 0;
	struct lan lan;
	int r = helper_need(job, "path", &path, err);

	if (!r && (!json_is_integer(vni) || user_of(job) == (uid_t)-1))
		r = error_set(err, -EINVAL, "the job has no \"vni\" or no \"user\"");
	if (!r && local)
		r = read_address(local, &address, err);
	/* What an earlier job, that was killed, has left. */
	if (!r)
		r = fabric_destroy(path, err);
	if (!r)
		r = fabric_create(path, (uint32_t)json_integer_value(vni), address, err);
	if (r)
		return r;
	r = gateway ? lead_out(path, gateway, err) : 0;
	if (!r && read_lan(job, &lan))
		r = fabric_join_lan(path, &lan, err);
	if (!r && address)
		r = add_nodes(job, path, err);
	if (!r)
		r = each_tap(job, "taps", path, true, err);
	if (r)
		fabric_destroy(path, NULL);
	return r;
}

int helper_network_nodes(const json_t *job, struct error *err)
{
	const char *path;
	int r = helper_need(job, "path", &path, err);

	if (!r)
		r = add_nodes(job, path, err);
	return r ? r : remove_nodes(job, path, err);
}

int helper_network_taps(const json_t *job, struct error *err)
{
	const char *path;
	int r = helper_need(job, "path", &path, err);

	if (!r && user_of(job) == (uid_t)-1)
		r = error_set(err, -EINVAL, "the job has no \"user\"");
	if (!r)
		r = each_tap(job, "add", path, true, err);
	return r ? r : each_tap(job, "remove", path, false, err);
}
