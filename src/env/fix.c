/* SPDX-License-Identifier: Apache-2.0 */
/* What a person can do about a conflict. */

#include <stdlib.h>
#include <string.h>

#include "env/meet.h"
#include "lib/cleanup.h"
#include "lib/io.h"

/* What the user asked for as one value, to stay near it: a new reference or NULL. */
static json_t *asked_for(const struct decision *d)
{
	for (size_t i = 0; i < d->n; i++) {
		json_t *wants = json_pack("[O]", d->claim[i]->want), *value = NULL;

		if (d->claim[i]->doc->level == LEVEL_USER && d->field->type->nearest)
			value = d->field->type->nearest(d->field, wants, NULL);
		json_decref(wants);
		if (value)
			return value;
	}
	return NULL;
}

/* When several values are left, one of them. */
static json_t *value_of_all(const struct decision *d)
{
	json_t *wants = claims_wants(d->claim, d->n, true), *value = NULL;

	if (d->field->type->nearest)
		value = d->field->type->nearest(d->field, wants, NULL);
	json_decref(wants);
	return value;
}

/* What all levels but the user's leave: a value to take instead, or whether there is none. */
static enum verdict meet_others(const struct decision *d, json_t **value)
{
	const struct type *type = d->field->type;
	json_t *wants = claims_wants(d->claim, d->n, false);
	json_t *asked = asked_for(d);
	struct meeting meeting = {0};
	enum verdict verdict = type->meet(d->field, wants, &meeting);

	if (verdict == MEET_OPEN && json_array_size(wants) && type->nearest)
		meeting.value = type->nearest(d->field, wants, asked);
	*value = meeting.value;
	free(meeting.why);
	json_decref(wants);
	json_decref(asked);
	return verdict;
}

/* The first of the policy's rules that take part. */
static const char *rule_of_others(const struct decision *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->claim[i]->doc->level != LEVEL_USER)
			return d->claim[i]->doc->rule;
	return NULL;
}

/* Several values are left: one of them, or what it has to be like. */
static char *say_one(const struct decision *d)
{
	json_t *value = value_of_all(d);
	CLEANUP_FREE char *text = value ? value_text(d->field, value) : NULL;

	json_decref(value);
	return text ? io_format("%s: %s", d->name, text)
		    : io_format("say %s, like the pattern", d->name);
}

/* One value instead of what is asked for; for what is united, no single one. */
static char *take_instead(const struct decision *d, const json_t *value, const char *rule)
{
	bool united = d->field->type == &type_set || d->field->type == &type_steps;
	CLEANUP_FREE char *text = value && !united ? value_text(d->field, value) : NULL;

	if (d->field->type == &type_map)
		return io_format("%s, or a waiver of %s",
				 json_is_true(value) ? "let it be there" : "leave it out", rule);
	if (text)
		return io_format("%s: %s, or a waiver of %s", d->name, text, rule);
	return io_format("make yours fit rule %s, or a waiver of it", rule);
}

char *find_fix(const struct decision *d)
{
	const char *rule = rule_of_others(d);
	json_t *value;
	char *fix;

	if (d->missing)
		return say_one(d);
	if (!rule)
		return strdup("one of these has to change");
	if (meet_others(d, &value) == MEET_CONFLICT)
		fix = strdup("the site's rules leave nothing: ask who wrote them");
	else
		fix = take_instead(d, value, rule);
	json_decref(value);
	return fix;
}
