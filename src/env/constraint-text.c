/* SPDX-License-Identifier: Apache-2.0 */
/* Texts: a constraint is a list of texts and patterns, of which a value must be any. */

#include <string.h>

#include "env/schema.h"
#include "env/type.h"

static bool is_literal(const struct field *f, const char *text)
{
	return f->exact || !is_pattern(text);
}

/* Adds one choice, checked. */
static bool read_choice(const struct source *s, const struct field *f, const struct node *node,
			json_t *choices)
{
	if (node->kind != NODE_TEXT)
		return source_problem(s, node, "%s must be a text, or a list of texts", f->path);
	if (strlen(node->text) > MAX_TEXT || is_literal(f, node->text))
		if (!check_text(s, f, node))
			return false;
	return json_array_append_new(choices, json_string(node->text)) == 0 ||
	       source_problem(s, node, "%s: this is not UTF-8", f->path);
}

static json_t *text_read(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *choices = json_array(), *sorted = NULL;
	bool good = true;

	if (node->kind != NODE_LIST)
		good = read_choice(s, f, node, choices);
	else if (!node->n)
		good = source_problem(s, node, "%s: an empty list leaves no value", f->path);
	for (size_t i = 0; node->kind == NODE_LIST && i < node->n; i++)
		good &= read_choice(s, f, node->item[i], choices);
	if (good)
		sorted = texts_sorted(choices);
	json_decref(choices);
	return sorted;
}

static bool choice_matches(const struct field *f, const char *choice, const char *value)
{
	return is_literal(f, choice) ? !strcmp(choice, value) : pattern_matches(choice, value);
}

static bool text_holds(const struct field *f, const json_t *want, const json_t *value)
{
	const json_t *choice;
	size_t i;

	json_array_foreach (want, i, choice)
		if (choice_matches(f, json_string_value(choice), json_string_value(value)))
			return true;
	return false;
}

static bool all_hold(const struct field *f, const json_t *wants, const json_t *value)
{
	const json_t *want;
	size_t i;

	json_array_foreach (wants, i, want)
		if (!text_holds(f, want, value))
			return false;
	return true;
}

/* The words a field may have as a list; an empty one when it may have any. */
static json_t *words_of(const struct field *f)
{
	json_t *list = json_array();

	for (const char *w = f->words; w && *w; w += strcspn(w, "|") + (w[strcspn(w, "|")] == '|'))
		json_array_append_new(list, json_stringn(w, strcspn(w, "|")));
	return list;
}

/* Whether the constraint names all that it allows. */
static bool is_closed(const struct field *f, const json_t *want)
{
	const json_t *choice;
	size_t i;

	json_array_foreach (want, i, choice)
		if (!is_literal(f, json_string_value(choice)))
			return false;
	return true;
}

/*
 * The texts that somebody named and all allow, sorted; *ret_closed: there can be no others, since
 * one of the constraints (or the field) names all it allows.
 */
static json_t *candidates(const struct field *f, const json_t *wants, bool *ret_closed)
{
	json_t *named = words_of(f), *left = json_array(), *sorted;
	const json_t *want, *choice;
	json_t *text;
	size_t i, j;

	*ret_closed = json_array_size(named);
	json_array_foreach (wants, i, want) {
		*ret_closed |= is_closed(f, want);
		json_array_foreach (want, j, choice)
			if (!f->words && is_literal(f, json_string_value(choice)))
				json_array_append_new(named, json_copy((json_t *)choice));
	}
	sorted = texts_sorted(named);
	json_array_foreach (sorted, i, text)
		if (all_hold(f, wants, text))
			json_array_append(left, text);
	json_decref(named);
	json_decref(sorted);
	return left;
}

static enum verdict text_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	bool closed;
	json_t *left = candidates(f, wants, &closed);
	size_t n = json_array_size(left);
	enum verdict verdict = !closed || n > 1 ? MEET_OPEN : n ? MEET_ONE : MEET_CONFLICT;

	if (verdict == MEET_ONE)
		ret->value = json_incref(json_array_get(left, 0));
	if (verdict == MEET_CONFLICT)
		ret->why = strdup("no text is in all of these");
	json_decref(left);
	return verdict;
}

static json_t *text_nearest(const struct field *f, const json_t *wants, const json_t *to)
{
	bool closed;
	json_t *left = candidates(f, wants, &closed);
	json_t *first = json_incref(json_array_get(left, 0));

	json_decref(left);
	return first;
}

static void text_show(const struct field *f, const json_t *want, struct args *ret)
{
	if (json_array_size(want) == 1)
		args_extend(ret, "%s", json_string_value(json_array_get(want, 0)));
	else
		texts_show(want, ret);
}

const struct type type_text = {
	.name = "text",
	.read = text_read,
	.meet = text_meet,
	.holds = text_holds,
	.show = text_show,
	.nearest = text_nearest,
};

/* -------- flags -------- */

static json_t *flag_read(const struct source *s, const struct field *f, const struct node *node)
{
	if (node_is(node, "yes") || node_is(node, "true"))
		return json_true();
	if (node_is(node, "no") || node_is(node, "false"))
		return json_false();
	source_problem(s, node, "%s must be yes or no", f->path);
	return NULL;
}

static bool flag_holds(const struct field *f, const json_t *want, const json_t *value)
{
	return json_is_true(want) == json_is_true(value);
}

static enum verdict flag_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	bool said[2] = {false, false};
	const json_t *want;
	size_t i;

	json_array_foreach (wants, i, want)
		said[json_is_true(want)] = true;
	if (said[0] && said[1]) {
		ret->why = strdup("it cannot be both yes and no");
		return MEET_CONFLICT;
	}
	if (!said[0] && !said[1])
		return MEET_OPEN;
	ret->value = json_boolean(said[1]);
	return MEET_ONE;
}

static void flag_show(const struct field *f, const json_t *want, struct args *ret)
{
	args_extend(ret, "%s", json_is_true(want) ? "yes" : "no");
}

const struct type type_flag = {
	.name = "flag",
	.read = flag_read,
	.meet = flag_meet,
	.holds = flag_holds,
	.show = flag_show,
};

/* -------- maps: whether a key is there -------- */

static json_t *map_read(const struct source *s, const struct field *f, const struct node *node)
{
	return json_boolean(!node_is(node, "none"));
}

static enum verdict map_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	enum verdict verdict = flag_meet(f, wants, ret);

	if (verdict == MEET_CONFLICT) {
		free(ret->why);
		ret->why = strdup("it must be there and must not");
	}
	return verdict;
}

static void map_show(const struct field *f, const json_t *want, struct args *ret)
{
	args_extend(ret, "%s", json_is_true(want) ? "there" : "none");
}

const struct type type_map = {
	.name = "map",
	.read = map_read,
	.meet = map_meet,
	.holds = flag_holds,
	.show = map_show,
};
