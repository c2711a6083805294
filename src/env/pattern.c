/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns, and lists of texts. */

#include <stdlib.h>
#include <string.h>

#include "env/schema.h"
#include "env/type.h"
#include "lib/cleanup.h"

bool is_pattern(const char *text)
{
	return strpbrk(text, "*?");
}

/* Behind one character of UTF-8. */
static const char *next_character(const char *text)
{
	text++;
	while ((*text & 0xc0) == 0x80)
		text++;
	return text;
}

bool pattern_matches(const char *pattern, const char *text)
{
	const char *star = NULL, *again = NULL;

	while (*text) {
		if (*pattern == '*') {
			star = ++pattern;
			again = text;
		} else if (*pattern == '?') {
			pattern++;
			text = next_character(text);
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star;
			text = again = next_character(again);
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static int compare(const void *a, const void *b)
{
	return strcmp(json_string_value(*(json_t *const *)a),
		      json_string_value(*(json_t *const *)b));
}

json_t *texts_sorted(const json_t *texts)
{
	size_t n = json_array_size(texts);
	CLEANUP_FREE json_t **item = calloc(n + 1, sizeof(json_t *));
	json_t *sorted = item ? json_array() : NULL;

	if (!sorted)
		return NULL;
	for (size_t i = 0; i < n; i++)
		item[i] = json_array_get(texts, i);
	qsort(item, n, sizeof(json_t *), compare);
	for (size_t i = 0; i < n; i++)
		if (!i || compare(&item[i - 1], &item[i]))
			json_array_append(sorted, item[i]);
	return sorted;
}

bool texts_contain(const json_t *texts, const char *text)
{
	const json_t *item;
	size_t i;

	json_array_foreach (texts, i, item)
		if (!strcmp(json_string_value(item), text))
			return true;
	return false;
}

void texts_show(const json_t *texts, struct args *ret)
{
	const json_t *item;
	size_t i;

	args_extend(ret, "[");
	json_array_foreach (texts, i, item)
		args_extend(ret, "%s%s", i ? ", " : "", json_string_value(item));
	args_extend(ret, "]");
}

json_t *value_want(const struct type *type, const json_t *value)
{
	json_t *copy = json_deep_copy(value);

	if (type == &type_text)
		return json_pack("[o]", copy);
	if (type == &type_number)
		return json_pack("[[O, o]]", copy, copy);
	if (type == &type_set)
		return json_pack("{s:o}", "require", copy);
	return copy;
}

char *want_text(const struct field *field, const json_t *want)
{
	struct args text = {0};
	char *line;

	args_add(&text, "%s", "");
	field->type->show(field, want, &text);
	line = text.failed ? NULL : take_ptr(text.v[0]);
	args_done(&text);
	/* What is shown is a line. */
	for (char *p = line; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = ' ';
	return line;
}

char *value_text(const struct field *field, const json_t *value)
{
	json_t *want = value_want(field->type, value);
	char *text = want ? want_text(field, want) : NULL;

	json_decref(want);
	return text;
}

bool check_text(const struct source *source, const struct field *field, const struct node *node)
{
	const char *wanted = field->check ? field->check(node->text) : NULL;
	size_t n = strlen(node->text);

	if (n > MAX_TEXT)
		return source_problem(source, node, "%s is longer than %u bytes", field->path,
				      MAX_TEXT);
	for (const char *w = field->words; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL) {
		if (n && strcspn(w, "|") == n && !strncmp(w, node->text, n))
			return true;
		wanted = field->words;
	}
	return !wanted || source_problem(source, node, "%s: \"%s\" is not %s", field->path,
					 node->text, wanted);
}
