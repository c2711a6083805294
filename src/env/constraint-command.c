/* SPDX-License-Identifier: Apache-2.0 */
/* Commands, which are taken whole. */

#include <stdlib.h>
#include <string.h>

#include "env/schema.h"
#include "env/type.h"

static json_t *command_read(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *words = json_array();
	bool good = true;

	if (node->kind != NODE_LIST || !node->n)
		good = source_problem(
			s, node,
			"%s must be a list of a program and its arguments, like [./lu, \"-n\"]",
			f->path);
	for (size_t i = 0; node->kind == NODE_LIST && i < node->n; i++) {
		const struct node *word = node->item[i];

		if (word->kind != NODE_TEXT || strlen(word->text) > MAX_TEXT ||
		    (!i && !*word->text))
			good = source_problem(s, word, "%s: this must be a text", f->path);
		else
			json_array_append_new(words, json_string(word->text));
	}
	if (good)
		return words;
	json_decref(words);
	return NULL;
}

static bool command_holds(const struct field *f, const json_t *want, const json_t *value)
{
	return json_equal(want, value);
}

static enum verdict command_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	const json_t *want;
	size_t i;

	json_array_foreach (wants, i, want)
		if (!json_equal(want, json_array_get(wants, 0))) {
			ret->why = strdup("there are different commands");
			return MEET_CONFLICT;
		}
	if (!json_array_size(wants))
		return MEET_OPEN;
	ret->value = json_incref(json_array_get(wants, 0));
	return MEET_ONE;
}

static void command_show(const struct field *f, const json_t *want, struct args *ret)
{
	texts_show(want, ret);
}

const struct type type_command = {
	.name = "command",
	.read = command_read,
	.meet = command_meet,
	.holds = command_holds,
	.show = command_show,
};
