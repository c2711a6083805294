/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what a cluster is to be. */

#include "job/spec.h"

#include <errno.h>
#include <string.h>

#include "job/manifest.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/paths.h"
#include "vms/subnet.h"

#define READY_S 300u
#define VMS_MAX 1000000

static int need(const char *text, const char *what, struct error *err)
{
	return text ? 0 : error_set(err, -EINVAL, "\"%s\" is missing", what);
}

static int check_texts(const json_t *list, const char *what, size_t least, struct error *err)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) < least)
		return error_set(err, -EINVAL, "\"%s\" has to be a list of texts", what);
	json_array_foreach (list, i, item)
		if (!json_is_string(item))
			return error_set(err, -EINVAL, "\"%s\" has to be a list of texts", what);
	return 0;
}

static const char *text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* All VMs have addresses in the network: the first two are its own and the bridge's. */
static int check_room(const struct spec *s, struct error *err)
{
	struct subnet subnet;
	int r = subnet_parse(s->subnet, &subnet, err);

	if (!r && s->vms > subnet_last(&subnet) - subnet.base - 1)
		r = error_set(err, -ENOSPC,
			      "%zu VMs do not fit into network.subnet %s, which has addresses for "
			      "%u: give a larger one, like 10.78.0.0/16",
			      s->vms, s->subnet, subnet_last(&subnet) - subnet.base - 1);
	return r;
}

static uint64_t used_of(const json_t *json)
{
	json_int_t ms = json_integer_value(json_object_get(json, "used-ms"));

	return ms > 0 ? (uint64_t)ms : 0;
}

static void take(struct spec *s)
{
	const json_t *json = s->json, *network;

	s->name = text(json, "name");
	s->socket = text(json, "socket");
	s->digest = text(json, "digest");
	s->environment = json_object_get(json, "environment");
	s->documents = json_object_get(json, "documents");
	s->waivers = json_object_get(json, "waivers");
	s->facts = json_object_get(json, "facts");
	s->restore = json_object_get(json, "restore");
	s->job = text(json, "job");
	s->former = json_object_get(json, "former");
	s->image = json_object_get(json, "image");
	s->proof = json_object_get(json, "proof");
	s->nodes = json_object_get(json, "nodes");
	s->addresses = json_object_get(json, "addresses");
	s->program = json_object_get(json, "program");
	s->variables = json_object_get(json, "variables");
	s->user = text(s->environment, "user");
	s->directory = text(s->environment, "directory");
	s->used_ms = used_of(json);
	s->uid = json_integer_value(json_object_get(json, "uid"));
	s->gid = json_integer_value(json_object_get(json, "gid"));
	s->user_name = text(json, "user-name");
	s->self = json_is_true(json_object_get(json, "self"));
	s->label = json_is_true(json_object_get(json, "label"));
	s->detach = json_is_true(json_object_get(json, "detach"));
	network = json_object_get(s->environment, "network");
	s->subnet = text(network, "subnet");
	s->subnet = s->subnet ? s->subnet : SUBNET_DEFAULT;
}

/* The job whose checkpoint this is. */
static int check_job(const struct spec *s, struct error *err)
{
	if (s->restore && !s->job)
		return error_set(err, -EINVAL, "\"job\" is missing beside \"restore\"");
	if (s->restore && !s->former)
		return error_set(err, -EINVAL, "\"former\" is missing beside \"restore\"");
	if (s->job &&
	    (strlen(s->job) != JOB_ID - 1 || strspn(s->job, "0123456789abcdef") != JOB_ID - 1))
		return error_set(err, -EINVAL, "\"job\" is not 32 hexadecimal digits");
	return 0;
}

static int check_former(const struct spec *s, struct error *err)
{
	int r;

	if (!s->former)
		return 0;
	r = need(text(s->former, "id"), "former.id", err);
	if (!r)
		r = check_texts(json_object_get(s->former, "nodes"), "former.nodes", 1, err);
	return r ? r : check_texts(json_object_get(s->former, "lost"), "former.lost", 0, err);
}

static int take_numbers(struct spec *s, struct error *err)
{
	json_int_t vms = json_integer_value(json_object_get(s->environment, "vms"));
	json_int_t ready = json_integer_value(json_object_get(s->json, "ready-s"));

	if (vms < 1 || vms > VMS_MAX)
		return error_set(err, -EINVAL, "an environment has 1 to %d VMs", VMS_MAX);
	s->vms = (size_t)vms;
	s->ready_s = ready > 0 && ready < 86400 ? (unsigned)ready : READY_S;
	return check_room(s, err);
}

static int take_others(struct spec *s, struct error *err)
{
	json_int_t others = json_integer_value(json_object_get(s->json, "others"));

	if (others < 0 || (size_t)others >= json_array_size(s->nodes))
		return error_set(err, -EINVAL, "\"others\" leaves no node for VMs");
	s->others = (size_t)others;
	return 0;
}

int spec_read(json_t *json, struct spec *ret, struct error *err)
{
	struct spec s = {.json = json};
	int r;

	take(&s);
	r = need(s.name, "name", err);
	if (!r)
		r = paths_check_name(s.name, "cluster", err);
	if (!r && strlen(s.name) > 50)
		r = error_set(err, -EINVAL, "cluster name \"%s\" is longer than 50 characters",
			      s.name);
	if (!r)
		r = need(s.socket, "socket", err);
	if (!r)
		r = need(s.digest, "digest", err);
	if (!r && (!json_is_object(s.environment) || !json_is_object(s.image)))
		r = error_set(err, -EINVAL, "\"environment\" and \"image\" have to be objects");
	if (!r)
		r = check_texts(s.nodes, "nodes", 1, err);
	if (!r)
		r = take_others(&s, err);
	if (!r && json_array_size(s.nodes) - s.others > 1)
		r = check_texts(s.addresses, "addresses", json_array_size(s.nodes) - s.others, err);
	if (!r)
		r = check_texts(s.program, "program", 0, err);
	if (!r)
		r = check_job(&s, err);
	if (!r)
		r = check_former(&s, err);
	if (!r)
		r = take_numbers(&s, err);
	if (r)
		json_decref(json);
	else
		*ret = s;
	return r;
}

void spec_done(struct spec *s)
{
	json_decref(s->json);
	*s = (struct spec){0};
}
