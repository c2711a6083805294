/* SPDX-License-Identifier: Apache-2.0 */
/* The facts of a request, and which documents they choose. */

#include "env/facts.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MAX_COUNT 1000000000
#define MAX_WALLTIME (3650ll * 86400 * 1000)

static const struct field facts_table[] = {
	{.path = "user", .type = &type_text},
	{.path = "group", .type = &type_text},
	{.path = "project", .type = &type_text},
	{.path = "queue", .type = &type_text},
	{.path = "walltime", .type = &type_number, .unit = UNIT_DURATION, .max = MAX_WALLTIME},
	{.path = "nodes", .type = &type_number, .max = MAX_COUNT},
	{.path = "vms", .type = &type_number, .max = MAX_COUNT},
	{.path = "application", .type = &type_text},
	{.path = "node-type", .type = &type_text},
};

const struct field *fact_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(facts_table); i++)
		if (!strcmp(facts_table[i].path, name))
			return &facts_table[i];
	return NULL;
}

/* The value that a text is, or NULL with the reason. A text is itself, also with a "*" in it. */
static json_t *parse_value(const struct field *fact, const char *text, struct error *err)
{
	char copy[256];
	struct node node = {.kind = NODE_TEXT, .line = 1, .column = 1, .text = copy};
	struct args problems = {0};
	struct source source = {.where = "--fact", .problems = &problems};
	struct meeting meeting = {0};
	json_t *want, *wants, *value;

	if (fact->type == &type_text) {
		value = json_string(text);
		if (!value)
			error_set(err, -EINVAL, "this is not UTF-8");
		return value;
	}
	if (strlen(text) >= sizeof(copy)) {
		error_set(err, -EINVAL, "%s: \"%.32s...\" is too long", fact->path, text);
		return NULL;
	}
	snprintf(copy, sizeof(copy), "%s", text);
	want = fact->type->read(&source, fact, &node);
	wants = want ? json_pack("[o]", want) : NULL;
	if (wants && fact->type->meet(fact, wants, &meeting) != MEET_ONE)
		error_set(err, -EINVAL, "%s: \"%s\" is not one value", fact->path, text);
	else if (!wants)
		error_set(err, -EINVAL, "%s",
			  problems.n ? problems.v[0] + strlen("--fact:1:1: ") : "out of memory");
	json_decref(wants);
	free(meeting.why);
	args_done(&problems);
	return meeting.value;
}

int facts_add(json_t *facts, const char *name, const char *value, struct error *err)
{
	const struct field *fact = fact_find(name);
	json_t *list = json_object_get(facts, name), *item;

	if (!fact)
		return error_set(err, -EINVAL, "there is no fact \"%s\" (there are " FACT_NAMES ")",
				 name);
	item = parse_value(fact, value, err);
	if (!item)
		return error_prefix(err, -EINVAL, "fact %s", name);
	if (!list) {
		list = json_array();
		json_object_set_new(facts, name, list);
	}
	return json_array_append_new(list, item) < 0
		       ? error_set(err, -EINVAL, "fact %s: out of memory", name)
		       : 0;
}

static int add_groups(json_t *facts, struct error *err)
{
	int n = getgroups(0, NULL), r = 0;
	CLEANUP_FREE gid_t *gids = calloc((size_t)(n < 0 ? 0 : n) + 1, sizeof(gid_t));
	struct group *group;

	if (!gids || (n = getgroups(n, gids)) < 0)
		return error_errno(err, -errno, "cannot read this process's groups");
	gids[n++] = getegid();
	for (int i = 0; !r && i < n; i++) {
		group = getgrgid(gids[i]);
		if (group)
			r = facts_add(facts, "group", group->gr_name, err);
	}
	return r;
}

int facts_add_caller(json_t *facts, struct error *err)
{
	struct passwd *user = getpwuid(geteuid());
	int r = 0;

	if (!json_object_get(facts, "user") && user)
		r = facts_add(facts, "user", user->pw_name, err);
	if (!r && !json_object_get(facts, "group"))
		r = add_groups(facts, err);
	return r;
}

static bool any_holds(const struct claim *claim, const json_t *values)
{
	const json_t *value;
	size_t i;

	json_array_foreach (values, i, value)
		if (claim->field->type->holds(claim->field, claim->want, value))
			return true;
	return false;
}

bool facts_match(const json_t *facts, const struct document *doc, char **why)
{
	for (size_t i = 0; i < doc->nmatch; i++) {
		const struct claim *claim = &doc->match[i];
		const json_t *values = json_object_get(facts, claim->field->path);
		CLEANUP_FREE char *text = NULL;

		if (any_holds(claim, values))
			continue;
		text = want_text(claim->field, claim->want);
		*why = json_array_size(values)
			       ? io_format("%s is not %s", claim->field->path, text ? text : "")
			       : io_format("%s is not known", claim->field->path);
		return false;
	}
	return true;
}
