/* SPDX-License-Identifier: Apache-2.0 */
/* What a part is told at its beginning. */

#include "part/setup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/paths.h"

static const char *text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static int need_name(const json_t *object, const char *key, const char **ret, struct error *err)
{
	*ret = text(object, key);
	return *ret ? paths_check_name(*ret, key, err)
		    : error_set(err, -EINVAL, "setup: \"%s\" is not a text", key);
}

static int parse_network(const json_t *network, struct setup *s, struct error *err)
{
	const char *subnet = text(network, "subnet");
	int r = need_name(network, "name", &s->network, err);

	s->network_id = text(network, "id");
	s->made = json_is_true(json_object_get(network, "made"));
	if (r)
		return error_prefix(err, r, "network");
	if (!subnet)
		return error_set(err, -EINVAL, "setup: the network has no \"subnet\"");
	if (!s->network_id || strlen(s->network_id) != 16 ||
	    strspn(s->network_id, "0123456789abcdef") != 16)
		return error_set(err, -EINVAL,
				 "setup: the network's \"id\" is not 16 hexadecimal digits");
	return subnet_parse(subnet, &s->subnet, err);
}

static int parse_vm(const struct setup *s, const json_t *json, struct setup_vm *ret,
		    struct error *err)
{
	uint32_t address;
	int r = need_name(json, "name", &ret->name, err);

	if (r)
		return r;
	ret->json = (json_t *)json;
	if (setup_find(s, ret->name))
		return error_set(err, -EINVAL, "setup: VM %s is there twice", ret->name);
	ret->address = text(json, "address");
	if (!ret->address)
		return error_set(err, -EINVAL, "setup: VM %s has no \"address\"", ret->name);
	r = subnet_parse_address(&s->subnet, ret->address, &address, err);
	if (r)
		return error_prefix(err, r, "VM %s", ret->name);
	ret->grant = ret->kept = json_object_get(json_object_get(s->json, "grants"), ret->name);
	if (!json_is_object(ret->grant))
		return error_set(err, -EINVAL, "setup: VM %s has no grant", ret->name);
	json_incref(ret->json);
	json_incref(ret->kept);
	return 0;
}

static int parse_vms(const json_t *list, struct setup *s, struct error *err)
{
	size_t n = json_array_size(list);
	int r = 0;

	if (!json_is_array(list) || n > SETUP_VMS_MAX)
		return error_set(err, -EINVAL, "setup: \"vms\" is not a list of at most %d VMs",
				 SETUP_VMS_MAX);
	s->vms = calloc(SETUP_VMS_MAX, sizeof(*s->vms));
	if (!s->vms)
		return error_set(err, -ENOMEM, "out of memory");
	while (!r && s->nvms < n) {
		struct setup_vm vm = {0};

		r = parse_vm(s, json_array_get(list, s->nvms), &vm, err);
		if (!r)
			s->vms[s->nvms++] = vm;
	}
	return r;
}

/* An absolute path, or NULL where there is none. */
static int parse_path(const json_t *message, const char *key, const char **ret, struct error *err)
{
	const json_t *path = json_object_get(message, key);

	*ret = json_string_value(path);
	if (path && !json_is_null(path) && (!*ret || **ret != '/'))
		return error_set(err, -EINVAL, "setup: \"%s\" is not an absolute path", key);
	return 0;
}

int setup_parse(const json_t *message, struct setup *ret, struct error *err)
{
	struct setup s = {.json = json_incref((json_t *)message)};
	int r = need_name(message, "cluster", &s.cluster, err);

	if (!r)
		r = need_name(message, "name", &s.name, err);
	s.node = text(message, "node");
	s.environment = json_object_get(message, "environment");
	if (!r && !s.node)
		r = error_set(err, -EINVAL, "setup: \"node\" is not a text");
	if (!r && !json_is_object(s.environment))
		r = error_set(err, -EINVAL, "setup: \"environment\" is not an object");
	if (!r)
		r = parse_network(json_object_get(message, "network"), &s, err);
	if (!r)
		r = parse_vms(json_object_get(message, "vms"), &s, err);
	if (!r)
		r = parse_path(message, "cgroup", &s.cgroup, err);
	if (!r)
		r = parse_path(message, "socket", &s.socket, err);
	if (r)
		setup_done(&s);
	else
		*ret = s;
	return r;
}

static void forget(struct setup_vm *vm)
{
	json_decref(vm->json);
	json_decref(vm->kept);
}

static void free_vms(struct setup *s)
{
	for (size_t i = 0; i < s->nvms; i++)
		forget(&s->vms[i]);
	free(s->vms);
}

void setup_done(struct setup *s)
{
	free_vms(s);
	json_decref(s->json);
	*s = (struct setup){0};
}

/* -------- what changes -------- */

/* One that was here has its place still; else NULL. */
static struct setup_vm *find_place(const struct setup *s, const char *name)
{
	for (size_t i = 0; i < s->nvms; i++)
		if (!strcmp(s->vms[i].name, name))
			return &s->vms[i];
	return NULL;
}

/* Takes over what next has of its VMs. */
static void take_vms(struct setup *s, const struct setup *next)
{
	for (size_t i = 0; i < s->nvms; i++)
		s->vms[i].gone = !find_place(next, s->vms[i].name);
	for (size_t i = 0; i < next->nvms; i++) {
		struct setup_vm *vm = find_place(s, next->vms[i].name);
		bool known = vm;

		vm = known ? vm : &s->vms[s->nvms++];
		if (known)
			forget(vm);
		*vm = next->vms[i];
		json_incref(vm->json);
		json_incref(vm->kept);
	}
}

int setup_change(struct setup *s, const json_t *message, struct error *err)
{
	struct setup next = *s;
	size_t more = 0;
	int r;

	next.json = (json_t *)message;
	next.vms = NULL;
	next.nvms = 0;
	r = parse_vms(json_object_get(message, "vms"), &next, err);
	for (size_t i = 0; !r && i < next.nvms; i++)
		more += !find_place(s, next.vms[i].name);
	if (!r && s->nvms + more > SETUP_VMS_MAX)
		r = error_set(err, -E2BIG, "more than %d VMs of cluster %s have been here",
			      SETUP_VMS_MAX, s->cluster);
	if (!r)
		take_vms(s, &next);
	free_vms(&next);
	return r;
}

const struct setup_vm *setup_find(const struct setup *s, const char *name)
{
	for (size_t i = 0; i < s->nvms; i++)
		if (!s->vms[i].gone && !strcmp(s->vms[i].name, name))
			return &s->vms[i];
	return NULL;
}
