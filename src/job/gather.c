/* SPDX-License-Identifier: Apache-2.0 */
/* Many answers become one. */

#include "job/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"

int gather_init(struct gather *g)
{
	*g = (struct gather){.values = json_object(), .errors = json_array()};
	if (g->values && g->errors)
		return 0;
	gather_done(g);
	return -ENOMEM;
}

void gather_done(struct gather *g)
{
	nodeset_done(&g->ok);
	nodeset_done(&g->failed);
	json_decref(g->values);
	json_decref(g->errors);
	json_decref(g->more);
	*g = (struct gather){0};
}

void gather_fail(struct gather *g, int code, const char *reason)
{
	g->code = error_set(&g->why, code ? code : -EPIPE, "%s", reason);
}

static int add_ok(struct gather *g, const char *text, struct error *err)
{
	struct nodeset set = {0};
	int r = nodeset_parse(text, &set, err);

	if (!r)
		r = nodeset_merge(&g->ok, &set);
	nodeset_done(&set);
	return r;
}

static int add_values(struct gather *g, const json_t *values)
{
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach ((json_t *)values, key, value) {
		char *end;
		unsigned long place = strtoul(key, &end, 10);

		if (*end || end == key || place >= NODESET_PLACES)
			return -EPROTO;
		if (!r)
			r = nodeset_add(&g->ok, (uint32_t)place, (uint32_t)place);
		if (!r)
			r = json_object_set(g->values, key, value);
	}
	return r;
}

static int add_errors(struct gather *g, const json_t *errors)
{
	const json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (errors, i, one) {
		json_int_t place = json_integer_value(json_object_get(one, "node"));

		if (place < 0 || place >= NODESET_PLACES ||
		    json_integer_value(json_object_get(one, "errno")) <= 0)
			return -EPROTO;
		if (!r)
			r = nodeset_add(&g->failed, (uint32_t)place, (uint32_t)place);
		if (!r)
			r = json_array_append(g->errors, (json_t *)one);
	}
	return r;
}

static int add_refusal(struct gather *g, const json_t *message, json_int_t code)
{
	const char *reason = json_string_value(json_object_get(message, "error"));

	gather_fail(g, code > 0 && code < 4096 ? -(int)code : -EPROTO, reason ? reason : "?");
	g->more = json_incref((json_t *)message);
	return 1;
}

int gather_add(struct gather *g, const json_t *message, struct error *err)
{
	const json_t *code = json_object_get(message, "errno");
	const char *ok = json_string_value(json_object_get(message, "ok"));
	int r;

	if (code)
		return add_refusal(g, message, json_integer_value(code));
	r = ok ? add_ok(g, ok, err) : 0;
	if (!r)
		r = add_values(g, json_object_get(message, "values"));
	if (!r)
		r = add_errors(g, json_object_get(message, "errors"));
	if (r)
		return error_set(err, -EPROTO, "an answer that makes no sense came");
	return json_is_true(json_object_get(message, "done"));
}

bool gather_is_good(const struct gather *g)
{
	return !g->code && !json_array_size(g->errors);
}

const json_t *gather_value(const struct gather *g, uint32_t place)
{
	char key[16];

	snprintf(key, sizeof(key), "%u", place);
	return json_object_get(g->values, key);
}
