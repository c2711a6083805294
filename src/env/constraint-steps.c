/* SPDX-License-Identifier: Apache-2.0 */
/* Steps, which unite by their names and orders. */

#include <stdlib.h>
#include <string.h>

#include "env/schema.h"
#include "env/type.h"
#include "lib/cleanup.h"
#include "lib/io.h"

#define MAX_STEPS 256 /* of a document */
#define MAX_UNITED 1024

static const char *name_of(const json_t *step)
{
	return json_string_value(json_object_get(step, "step"));
}

static const char *run_of(const json_t *step)
{
	return json_string_value(json_object_get(step, "run"));
}

static const json_t *find(const json_t *steps, const char *name)
{
	const json_t *step;
	size_t i;

	json_array_foreach (steps, i, step)
		if (!strcmp(name_of(step), name))
			return step;
	return NULL;
}

/* The names a step is behind; NULL: the problem is told. */
static json_t *read_after(const struct source *s, const struct node *node)
{
	json_t *after = json_array();
	json_t *sorted;

	if (node && node->kind != NODE_LIST) {
		source_problem(s, node, "after must be a list of steps");
		json_decref(after);
		return NULL;
	}
	for (size_t i = 0; node && i < node->n; i++) {
		if (node->item[i]->kind == NODE_TEXT && *node->item[i]->text) {
			json_array_append_new(after, json_string(node->item[i]->text));
			continue;
		}
		source_problem(s, node->item[i], "after names steps");
		json_decref(after);
		return NULL;
	}
	sorted = texts_sorted(after);
	json_decref(after);
	return sorted;
}

struct step_parts {
	const struct node *step, *run, *after;
};

static bool split_step(const struct source *s, const struct node *node, struct step_parts *ret)
{
	*ret = (struct step_parts){0};
	if (node->kind == NODE_TEXT) {
		ret->run = node;
		return true;
	}
	for (size_t i = 0; node->kind == NODE_MAP && i + 1 < node->n; i += 2) {
		const struct node *key = node->item[i], *value = node->item[i + 1];

		if (node_is(key, "step"))
			ret->step = value;
		else if (node_is(key, "run"))
			ret->run = value;
		else if (node_is(key, "after"))
			ret->after = value;
		else
			return source_problem(s, key, "a step has step, run and after, not \"%s\"",
					      key->kind == NODE_TEXT ? key->text : "");
	}
	return ret->run || source_problem(s, node, "a step is a text, or has \"run\"");
}

static bool check_part(const struct source *s, const struct node *node, const char *what)
{
	if (node && (node->kind != NODE_TEXT || !*node->text || strlen(node->text) > MAX_TEXT))
		return source_problem(s, node, "%s must be a text of 1 to %u bytes", what,
				      MAX_TEXT);
	return true;
}

static bool read_step(const struct source *s, const struct node *node, json_t *steps)
{
	struct step_parts parts;
	const char *name;
	json_t *after;

	if (!split_step(s, node, &parts) || !check_part(s, parts.run, "run") ||
	    !check_part(s, parts.step, "step"))
		return false;
	name = parts.step ? parts.step->text : parts.run->text;
	if (find(steps, name))
		return source_problem(s, node, "step \"%s\" is in the list twice", name);
	after = read_after(s, parts.after);
	if (!after)
		return false;
	if (json_array_size(steps)) {
		const json_t *before = json_array_get(steps, json_array_size(steps) - 1);
		json_t *all;

		json_array_append(after, json_object_get(before, "step"));
		all = texts_sorted(after);
		json_decref(after);
		after = all;
	}
	return json_array_append_new(steps, json_pack("{s:s, s:s, s:o}", "step", name, "run",
						      parts.run->text, "after", after)) == 0;
}

static json_t *steps_read(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *steps = json_array();
	bool good = true;

	if (node_is(node, "none"))
		return steps;
	if (node->kind != NODE_LIST)
		good = source_problem(s, node, "%s must be a list of steps, or none", f->path);
	else if (node->n > MAX_STEPS)
		good = source_problem(s, node, "%s has more than %u steps", f->path, MAX_STEPS);
	for (size_t i = 0; i < node->n && i < MAX_STEPS && node->kind == NODE_LIST; i++)
		good &= read_step(s, node->item[i], steps);
	if (good)
		return steps;
	json_decref(steps);
	return NULL;
}

/* All steps by name, each with all it is behind. NULL: two of one name differ, *why says it. */
static json_t *unite(const json_t *wants, char **why)
{
	json_t *all = json_object();
	const json_t *want, *step;
	size_t i, j;

	json_array_foreach (wants, i, want)
		json_array_foreach (want, j, step) {
			const json_t *known = json_object_get(all, name_of(step));

			if (known && strcmp(run_of(known), run_of(step)) && !*why)
				*why = io_format("step \"%s\" runs two different things",
						 name_of(step));
			if (known)
				json_array_extend(json_object_get(known, "after"),
						  json_object_get(step, "after"));
			else
				json_object_set_new(all, name_of(step), json_deep_copy(step));
		}
	return all;
}

/* Steps that are put in order, by their names. */
struct order {
	json_t *names;
	json_t *behind;	 /* {NAME: [places of steps that are behind it]} */
	unsigned *waits; /* by place: steps that are there, and not yet in order before it */
};

static void order_done(struct order *o)
{
	json_decref(o->names);
	json_decref(o->behind);
	free(o->waits);
}

static const char *name_at(const struct order *o, size_t place)
{
	return json_string_value(json_array_get(o->names, place));
}

/* Each step that it is behind, as far as that is there at all, once. */
static void note_behind(struct order *o, const json_t *all, size_t place)
{
	json_t *after =
		texts_sorted(json_object_get(json_object_get(all, name_at(o, place)), "after"));
	const json_t *before;
	size_t i;

	json_array_foreach (after, i, before) {
		json_t *list = json_object_get(o->behind, json_string_value(before));

		if (!list)
			continue;
		json_array_append_new(list, json_integer((json_int_t)place));
		o->waits[place]++;
	}
	json_decref(after);
}

static bool order_init(struct order *o, json_t *all)
{
	json_t *names = json_array(), *step;
	const char *name;

	*o = (struct order){.behind = json_object(),
			    .waits = calloc(json_object_size(all) + 1, sizeof(*o->waits))};
	json_object_foreach (all, name, step) {
		json_array_append_new(names, json_string(name));
		json_object_set_new(o->behind, name, json_array());
	}
	o->names = texts_sorted(names);
	json_decref(names);
	if (!o->names || !o->behind || !o->waits)
		return false;
	for (size_t i = 0; i < json_array_size(o->names); i++)
		note_behind(o, all, i);
	return true;
}

/* The first by name of those that can be next; SIZE_MAX: none can. */
static size_t next_place(const struct order *o, const bool *done)
{
	for (size_t i = 0; i < json_array_size(o->names); i++)
		if (!done[i] && !o->waits[i])
			return i;
	return SIZE_MAX;
}

static void take_step(struct order *o, const json_t *all, size_t place, json_t *ordered)
{
	const char *name = name_at(o, place);
	const json_t *other;
	size_t i;

	json_array_append_new(ordered, json_pack("{s:s, s:s}", "step", name, "run",
						 run_of(json_object_get(all, name))));
	json_array_foreach (json_object_get(o->behind, name), i, other)
		o->waits[json_integer_value(other)]--;
}

/* In their order; *why is set when that is a circle. */
static json_t *put_in_order(json_t *all, char **why)
{
	CLEANUP_FREE bool *done = calloc(json_object_size(all) + 1, sizeof(*done));
	json_t *ordered = json_array();
	struct order o;
	size_t place;

	if (!order_init(&o, all) || !done) {
		*why = strdup("out of memory");
		order_done(&o);
		return ordered;
	}
	while ((place = next_place(&o, done)) != SIZE_MAX) {
		done[place] = true;
		take_step(&o, all, place, ordered);
	}
	for (place = 0; place < json_array_size(o.names) && done[place];)
		place++;
	if (place < json_array_size(o.names))
		*why = io_format("the order is a circle that step \"%s\" is in or behind",
				 name_at(&o, place));
	order_done(&o);
	return ordered;
}

static enum verdict steps_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	bool none = false, some = false;
	json_t *all, *ordered;
	const json_t *want;
	size_t i;

	json_array_foreach (wants, i, want) {
		none |= !json_array_size(want);
		some |= json_array_size(want) > 0;
	}
	if (!none && !some)
		return MEET_OPEN;
	if (none && some) {
		ret->why = strdup("there are steps where there must be none");
		return MEET_CONFLICT;
	}
	all = unite(wants, &ret->why);
	if (!ret->why && json_object_size(all) > MAX_UNITED)
		ret->why = io_format("there are more than %u steps", MAX_UNITED);
	ordered = ret->why ? NULL : put_in_order(all, &ret->why);
	json_decref(all);
	if (!ret->why) {
		ret->value = ordered;
		return MEET_ONE;
	}
	json_decref(ordered);
	return MEET_CONFLICT;
}

static size_t place_of(const json_t *steps, const char *name)
{
	const json_t *step;
	size_t i;

	json_array_foreach (steps, i, step)
		if (!strcmp(name_of(step), name))
			return i;
	return SIZE_MAX;
}

static bool steps_hold(const struct field *f, const json_t *want, const json_t *value)
{
	const json_t *step, *name;
	size_t i, j;

	if (!json_array_size(want))
		return !json_array_size(value);
	json_array_foreach (want, i, step) {
		size_t place = place_of(value, name_of(step));

		if (place == SIZE_MAX || strcmp(run_of(step), run_of(json_array_get(value, place))))
			return false;
		json_array_foreach (json_object_get(step, "after"), j, name)
			if (place_of(value, json_string_value(name)) != SIZE_MAX &&
			    place_of(value, json_string_value(name)) >= place)
				return false;
	}
	return true;
}

static void steps_show(const struct field *f, const json_t *want, struct args *ret)
{
	const json_t *step;
	size_t i;

	if (!json_array_size(want)) {
		args_extend(ret, "none");
		return;
	}
	args_extend(ret, "[");
	json_array_foreach (want, i, step) {
		bool named = strcmp(name_of(step), run_of(step));

		args_extend(ret, "%s", i ? ", " : "");
		if (named)
			args_extend(ret, "%s: ", name_of(step));
		args_extend(ret, "\"%s\"", run_of(step));
	}
	args_extend(ret, "]");
}

const struct type type_steps = {
	.name = "steps",
	.read = steps_read,
	.meet = steps_meet,
	.holds = steps_hold,
	.show = steps_show,
};
