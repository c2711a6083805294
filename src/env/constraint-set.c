/* SPDX-License-Identifier: Apache-2.0 */
/* Sets: what must be in, what may, what must not. */

#include <stdlib.h>
#include <string.h>

#include "env/schema.h"
#include "env/type.h"
#include "lib/cleanup.h"
#include "lib/io.h"

#define MAX_UNITED 2048

/* The length of the item's key: all of it, or what is before "=". */
static size_t key_length(const struct field *f, const char *item)
{
	return f->keyed ? strcspn(item, "=") : strlen(item);
}

static bool read_item(const struct source *s, const struct field *f, const struct node *node,
		      bool pattern, json_t *list)
{
	if (node->kind != NODE_TEXT)
		return source_problem(s, node, "%s: an item must be a text", f->path);
	if (pattern && f->keyed && strchr(node->text, '='))
		return source_problem(s, node, "%s: \"%s\": a pattern is over the name alone",
				      f->path, node->text);
	if (!pattern && is_pattern(node->text))
		return source_problem(s, node, "%s: \"%s\" is a pattern: what must be in is named",
				      f->path, node->text);
	if ((!pattern || !is_pattern(node->text)) && !check_text(s, f, node))
		return false;
	json_array_append_new(list, json_string(node->text));
	return true;
}

/* The sorted items of a list, or "none"; NULL: the problem is told. */
static json_t *read_list(const struct source *s, const struct field *f, const struct node *node,
			 bool pattern)
{
	json_t *list = json_array(), *sorted = NULL;
	bool good = true;

	if (node->kind != NODE_LIST && !node_is(node, "none"))
		good = source_problem(s, node, "%s must be a list, or none", f->path);
	for (size_t i = 0; node->kind == NODE_LIST && i < node->n; i++)
		good &= read_item(s, f, node->item[i], pattern, list);
	if (good)
		sorted = texts_sorted(list);
	json_decref(list);
	return sorted;
}

static json_t *read_parts(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *want = json_object();
	bool good = true;

	for (size_t i = 0; i + 1 < node->n; i += 2) {
		const struct node *key = node->item[i];
		bool require = node_is(key, "require");
		json_t *list;

		if (!require && !node_is(key, "allow") && !node_is(key, "forbid")) {
			good = source_problem(s, key,
					      "%s has require, allow and forbid, not \"%s\"",
					      f->path, key->kind == NODE_TEXT ? key->text : "");
			continue;
		}
		list = read_list(s, f, node->item[i + 1], !require);
		good &= list != NULL;
		if (list)
			json_object_set_new(want, key->text, list);
	}
	if (good)
		return want;
	json_decref(want);
	return NULL;
}

static json_t *set_read(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *list;

	if (node->kind == NODE_MAP)
		return read_parts(s, f, node);
	if (node_is(node, "none"))
		return json_pack("{s:[], s:[]}", "require", "allow");
	list = read_list(s, f, node, false);
	return list ? json_pack("{s:o}", "require", list) : NULL;
}

static bool any_matches(const json_t *patterns, const char *key)
{
	const json_t *pattern;
	size_t i;

	json_array_foreach (patterns, i, pattern)
		if (pattern_matches(json_string_value(pattern), key))
			return true;
	return false;
}

/* Whether the constraint lets the item in. */
static bool lets_in(const struct field *f, const json_t *want, const char *item)
{
	CLEANUP_FREE char *key = strndup(item, key_length(f, item));
	const json_t *allow = json_object_get(want, "allow");

	return key && (!allow || any_matches(allow, key)) &&
	       !any_matches(json_object_get(want, "forbid"), key);
}

static bool same_key(const struct field *f, const char *a, const char *b)
{
	size_t n = key_length(f, a);

	return key_length(f, b) == n && !strncmp(a, b, n);
}

/* Whether "NAME" or "NAME=VALUE" is met by an item of the set. */
static bool item_is_met(const struct field *f, const char *item, const json_t *set)
{
	const json_t *other;
	size_t i;

	json_array_foreach (set, i, other) {
		const char *text = json_string_value(other);

		if (!strcmp(text, item) ||
		    (f->keyed && !strchr(item, '=') && same_key(f, item, text)))
			return true;
	}
	return false;
}

static bool set_holds(const struct field *f, const json_t *want, const json_t *value)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(want, "require"), i, item)
		if (!item_is_met(f, json_string_value(item), value))
			return false;
	json_array_foreach (value, i, item)
		if (!lets_in(f, want, json_string_value(item)))
			return false;
	return true;
}

/* All that is required, sorted; *decided: somebody said what is in the set. */
static json_t *required(const json_t *wants, bool *decided)
{
	json_t *all = json_array(), *sorted;
	const json_t *want;
	size_t i;

	*decided = false;
	json_array_foreach (wants, i, want) {
		*decided |= json_object_get(want, "require") != NULL;
		json_array_extend(all, json_object_get(want, "require"));
	}
	sorted = texts_sorted(all);
	json_decref(all);
	return sorted;
}

/* "NAME" beside "NAME=VALUE" says nothing more; two values of a name do not go together. */
static json_t *join_keys(const struct field *f, const json_t *items, char **why)
{
	json_t *joined = json_array(), *item;
	size_t i;

	/* "-" sorts before "=": those of one name need not be neighbours. */
	json_array_foreach (items, i, item) {
		const char *name = json_string_value(item);
		const json_t *other;
		bool covered = false;
		size_t j;

		json_array_foreach (items, j, other) {
			const char *text = json_string_value(other);

			if (!f->keyed || i == j || !same_key(f, name, text))
				continue;
			covered |= !strchr(name, '=');
			if (strchr(name, '=') && strchr(text, '=') && !*why)
				*why = io_format("%s and %s do not go together", name, text);
		}
		if (!covered)
			json_array_append(joined, item);
	}
	return joined;
}

static enum verdict set_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	bool decided;
	json_t *items = required(wants, &decided), *joined;
	const json_t *item, *want;
	char *why = NULL;
	size_t i, j;

	if (json_array_size(items) > MAX_UNITED)
		why = io_format("there are more than %u items", MAX_UNITED);
	joined = why ? json_array() : join_keys(f, items, &why);
	json_array_foreach (joined, i, item)
		json_array_foreach (wants, j, want)
			if (!why && !lets_in(f, want, json_string_value(item)))
				why = io_format("%s is asked for and not allowed",
						json_string_value(item));
	json_decref(items);
	if (!why && decided) {
		ret->value = joined;
		return MEET_ONE;
	}
	json_decref(joined);
	ret->why = why;
	return why ? MEET_CONFLICT : MEET_OPEN;
}

static void set_show(const struct field *f, const json_t *want, struct args *ret)
{
	static const char *const parts[] = {"require", "allow", "forbid"};
	const json_t *require = json_object_get(want, "require");
	const json_t *allow = json_object_get(want, "allow");
	const char *comma = "";

	if (require && !json_array_size(require) && allow && !json_array_size(allow)) {
		args_extend(ret, "none");
		return;
	}
	if (require && json_object_size(want) == 1) {
		texts_show(require, ret);
		return;
	}
	args_extend(ret, "{");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const json_t *list = json_object_get(want, parts[i]);

		if (!list)
			continue;
		args_extend(ret, "%s%s: ", comma, parts[i]);
		texts_show(list, ret);
		comma = ", ";
	}
	args_extend(ret, "}");
}

const struct type type_set = {
	.name = "set",
	.read = set_read,
	.meet = set_meet,
	.holds = set_holds,
	.show = set_show,
};
