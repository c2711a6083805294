/* SPDX-License-Identifier: Apache-2.0 */
/* Decides a field: what the constraints leave, else the nearest default that fits. */

#include <stdlib.h>
#include <string.h>

#include "env/meet.h"
#include "lib/cleanup.h"
#include "lib/io.h"

json_t *claims_wants(const struct claim *const *claim, size_t n, bool user)
{
	json_t *wants = json_array();

	for (size_t i = 0; i < n; i++)
		if (user || claim[i]->doc->level != LEVEL_USER)
			json_array_append(wants, claim[i]->want);
	return wants;
}

/* Where the claims of the field begin: they are sorted by it first. */
static size_t first_of(const struct claims *from, const struct field *field)
{
	size_t low = 0, high = from->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (from->claim[middle]->field < field)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The claims of the field and key; those of a default may be patterns, too. */
static bool take_claims(const struct claims *from, const struct field *field, const char *key,
			const struct claim ***ret, size_t *n)
{
	size_t first = first_of(from, field), count = 0;

	for (size_t i = first; i < from->n && from->claim[i]->field == field; i++)
		count += claim_is_of(from->claim[i], key);
	*ret = calloc(count + 1, sizeof(**ret));
	for (size_t i = first; *ret && *n < count; i++)
		if (claim_is_of(from->claim[i], key))
			(*ret)[(*n)++] = from->claim[i];
	return *ret;
}

/* The one value that a constraint leaves: a new reference. */
static json_t *value_of(const struct field *field, const json_t *want)
{
	json_t *wants = json_pack("[O]", want);
	struct meeting meeting = {0};

	field->type->meet(field, wants, &meeting);
	json_decref(wants);
	free(meeting.why);
	return meeting.value;
}

/* The built-in default: a new reference, or NULL. */
static json_t *builtin_of(const struct field *field)
{
	struct args problems = {0};
	struct source source = {.where = "built-in", .problems = &problems};
	CLEANUP_FREE char *text = field->builtin ? strdup(field->builtin) : NULL;
	struct node node = {.kind = NODE_TEXT, .text = text};
	json_t *want = text ? field->type->read(&source, field, &node) : NULL;
	json_t *value = want ? value_of(field, want) : NULL;

	json_decref(want);
	args_done(&problems);
	return value;
}

static bool all_hold(const struct decision *d, const json_t *value)
{
	for (size_t i = 0; i < d->n; i++)
		if (!d->field->type->holds(d->field, d->claim[i]->want, value))
			return false;
	return true;
}

/* Keeps the value when it fits. Takes it. */
static bool try_value(struct decision *d, json_t *value, enum by by)
{
	if (!value || !all_hold(d, value)) {
		json_decref(value);
		return false;
	}
	d->value = value;
	d->by = by;
	return true;
}

static bool use_default(struct decision *d, const struct claim **claim, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (try_value(d, value_of(d->field, claim[i]->want), BY_DEFAULT)) {
			d->from = claim[i];
			return true;
		}
		d->dropped[d->ndropped++] = claim[i];
	}
	return false;
}

static void use_nearest(struct decision *d, const json_t *wants)
{
	json_t *builtin = builtin_of(d->field);

	if (builtin && d->field->type == &type_number)
		try_value(d, d->field->type->nearest(d->field, wants, builtin), BY_NEAREST);
	json_decref(builtin);
}

/* Nothing decides it. Somebody wants something of it: it has to be said. */
static void leave_open(struct decision *d)
{
	d->missing = d->n && d->field->type != &type_set;
	if (d->missing)
		d->why =
			strdup("several values are left, and no default is one of them: say which");
}

bool decide(const struct field *field, const char *key, const struct claims *said,
	    const struct claims *defaults, struct decision *d)
{
	CLEANUP_FREE const struct claim **fallback = NULL;
	struct meeting meeting = {0};
	enum verdict verdict;
	size_t nfallback = 0;
	json_t *wants;

	if (!take_claims(said, field, key, &d->claim, &d->n) ||
	    !take_claims(defaults, field, key, &fallback, &nfallback))
		return false;
	d->dropped = calloc(nfallback + 1, sizeof(*d->dropped));
	wants = claims_wants(d->claim, d->n, true);
	if (!d->dropped || !wants)
		return false;
	verdict = field->type->meet(field, wants, &meeting);
	d->value = meeting.value;
	d->why = meeting.why;
	if (verdict == MEET_ONE)
		d->by = BY_GIVEN;
	if (verdict == MEET_OPEN && !use_default(d, fallback, nfallback) &&
	    !try_value(d, builtin_of(field), BY_BUILTIN)) {
		use_nearest(d, wants);
		if (!d->value)
			leave_open(d);
	}
	if (d->why)
		d->fix = find_fix(d);
	json_decref(wants);
	return true;
}
