/* SPDX-License-Identifier: Apache-2.0 */
/* Reads documents into claims, and tells all that is wrong with them. */

#include "env/document.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "env/facts.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

#define MAX_FILE (1u << 20)
#define MAX_DOCUMENTS 64 /* in a file */

struct reader {
	struct source source;
	struct document *doc;
	bool policy;
};

static const char *const level_names[] = {"user", "project", "class", "site"};

const char *level_name(enum level level)
{
	return level_names[level];
}

char *claim_place(const struct claim *claim)
{
	return io_format("%s:%u:%u", claim->doc->file, claim->line, claim->column);
}

char *claim_text(const struct claim *claim)
{
	return want_text(claim->field, claim->want);
}

bool claim_is_of(const struct claim *claim, const char *key)
{
	if (!claim->key || !key)
		return !claim->key && !key;
	return pattern_matches(claim->key, key);
}

/* Takes want. */
static bool add_claim(struct claim **list, size_t *n, struct claim claim)
{
	struct claim *grown = *list;

	if (!(*n & (*n - 1)))
		grown = realloc(*list, (*n ? 2 * *n : 1) * sizeof(*grown));
	if (!grown || !claim.want) {
		json_decref(claim.want);
		free(claim.key);
		return false;
	}
	*list = grown;
	grown[(*n)++] = claim;
	return true;
}

static void say(struct reader *r, const struct field *field, const char *key, const struct node *at,
		json_t *want, bool is_default)
{
	struct claim claim = {.field = field,
			      .key = key ? strdup(key) : NULL,
			      .want = want,
			      .doc = r->doc,
			      .line = at->line,
			      .column = at->column,
			      .is_default = is_default};

	if ((key && !claim.key) || !add_claim(&r->doc->claim, &r->doc->n, claim))
		r->source.problems->failed = true;
}

/* A default is what a field gets: one value. */
static bool is_one_value(const struct field *field, const json_t *want)
{
	json_t *wants = json_pack("[O]", want);
	struct meeting meeting = {0};
	bool one = wants && field->type->meet(field, wants, &meeting) == MEET_ONE;

	json_decref(wants);
	json_decref(meeting.value);
	free(meeting.why);
	return one;
}

static void read_value(struct reader *r, const struct field *field, const char *key,
		       const struct node *node, bool is_default)
{
	json_t *want = field->type->read(&r->source, field, node);

	if (!want)
		return;
	if (is_default && !is_one_value(field, want)) {
		source_problem(&r->source, node, "%s: a default is one value", field->path);
		json_decref(want);
		return;
	}
	say(r, field, key, node, want, is_default);
}

static void unknown_field(struct reader *r, const char *prefix, const struct node *key)
{
	char near[64];

	if (field_nearest(prefix, key->text, near, sizeof(near)))
		source_problem(&r->source, key, "unknown field \"%s\" (did you mean \"%s\"?)",
			       key->text, near);
	else
		source_problem(&r->source, key,
			       "unknown field \"%s\" (\"wisp env fields\" lists them)", key->text);
}

static void read_map(struct reader *r, const struct field *map, const struct node *node,
		     bool is_default);

/* The fields below a prefix ("": all), of a map's entry when there is a key. */
static void read_fields(struct reader *r, const char *prefix, const char *key,
			const struct node *node, bool is_default)
{
	if (node->kind != NODE_MAP) {
		source_problem(&r->source, node, "%s must be fields: \"NAME: VALUE\"",
			       *prefix ? prefix : "a document");
		return;
	}
	for (size_t i = 0; i + 1 < node->n; i += 2) {
		const struct node *name = node->item[i], *value = node->item[i + 1];
		CLEANUP_FREE char *path = NULL;
		const struct field *field;

		if (name->kind != NODE_TEXT)
			continue; /* told when it was parsed */
		path = io_format("%s%s%s", prefix, *prefix ? "." : "", name->text);
		field = path && !strchr(name->text, '.') && !strchr(name->text, '*')
				? field_find(path)
				: NULL;
		if (field && field->type == &type_map)
			read_map(r, field, value, is_default);
		else if (field)
			read_value(r, field, key, value, is_default);
		else if (path && !strpbrk(name->text, ".*") && field_is_group(path))
			read_fields(r, path, NULL, value, is_default);
		else
			unknown_field(r, prefix, name);
	}
}

static void read_entry(struct reader *r, const struct field *map, const struct node *key,
		       const struct node *value, bool is_default)
{
	const struct field *entry = field_of_entries(map);
	CLEANUP_FREE char *prefix = io_format("%s.*", map->path);
	bool none = node_is(value, "none") && value->plain;

	if (!is_pattern(key->text) && !check_text(&r->source, map, key))
		return;
	if (is_default && none)
		source_problem(&r->source, value, "%s: a default cannot be that there is none",
			       map->path);
	else if (!is_default && (none || !is_pattern(key->text)))
		say(r, map, key->text, key, json_boolean(!none), false);
	if (none || !prefix)
		return;
	if (entry)
		read_value(r, entry, key->text, value, is_default);
	else
		read_fields(r, prefix, key->text, value, is_default);
}

static void read_map(struct reader *r, const struct field *map, const struct node *node,
		     bool is_default)
{
	if (node_is(node, "none") && !is_default) {
		say(r, map, "*", node, json_false(), false);
		return;
	}
	if (node->kind != NODE_MAP) {
		source_problem(&r->source, node, "%s must be entries, \"KEY: ...\"%s", map->path,
			       is_default ? "" : ", or none");
		return;
	}
	for (size_t i = 0; i + 1 < node->n; i += 2)
		if (node->item[i]->kind == NODE_TEXT)
			read_entry(r, map, node->item[i], node->item[i + 1], is_default);
}

/* -------- what is not a field -------- */

static void read_version(struct reader *r, const struct node *node)
{
	if (!node_is(node, "1"))
		source_problem(&r->source, node, "wisp: this program reads version 1 only");
}

static void replace_text(struct reader *r, char **text, const struct node *node, const char *what)
{
	if (node->kind != NODE_TEXT || !*node->text) {
		source_problem(&r->source, node, "%s must be a text", what);
		return;
	}
	free(*text);
	*text = strdup(node->text);
	if (!*text)
		r->source.problems->failed = true;
}

static void read_rule(struct reader *r, const struct node *node)
{
	if (node->kind == NODE_TEXT && paths_check_name(node->text, "rule", NULL))
		source_problem(&r->source, node,
			       "rule: \"%s\" is not a name (letters, digits, \".\", \"_\", \"-\")",
			       node->text);
	else
		replace_text(r, &r->doc->rule, node, "rule");
}

static void read_because(struct reader *r, const struct node *node)
{
	replace_text(r, &r->doc->because, node, "because");
}

static void read_level(struct reader *r, const struct node *node)
{
	if (node_is(node, "site"))
		r->doc->level = LEVEL_SITE;
	else if (node_is(node, "project"))
		r->doc->level = LEVEL_PROJECT;
	else
		source_problem(&r->source, node, "level must be site or project");
}

static void read_warn(struct reader *r, const struct node *node)
{
	r->doc->warn = node_is(node, "yes") || node_is(node, "true");
	if (!r->doc->warn && !node_is(node, "no") && !node_is(node, "false"))
		source_problem(&r->source, node, "warn must be yes or no");
}

static void read_fact(struct reader *r, const struct node *name, const struct node *value)
{
	const struct field *fact = fact_find(name->text);
	json_t *want;

	if (!fact) {
		source_problem(&r->source, name,
			       "there is no fact \"%s\" (there are " FACT_NAMES ")", name->text);
		return;
	}
	want = fact->type->read(&r->source, fact, value);
	if (want && !add_claim(&r->doc->match, &r->doc->nmatch,
			       (struct claim){.field = fact, .want = want, .doc = r->doc}))
		r->source.problems->failed = true;
}

static void read_match(struct reader *r, const struct node *node)
{
	if (node->kind != NODE_MAP || !node->n)
		source_problem(&r->source, node, "match must be facts: \"NAME: VALUE\"");
	for (size_t i = 0; node->kind == NODE_MAP && i + 1 < node->n; i += 2)
		if (node->item[i]->kind == NODE_TEXT)
			read_fact(r, node->item[i], node->item[i + 1]);
}

static void read_defaults(struct reader *r, const struct node *node)
{
	read_fields(r, "", NULL, node, true);
}

static const struct key {
	const char *name;
	void (*read)(struct reader *r, const struct node *node);
	bool policy;
} keys[] = {
	{"wisp", read_version, false},	    {"rule", read_rule, false},
	{"level", read_level, true},	    {"match", read_match, true},
	{"warn", read_warn, true},	    {"because", read_because, false},
	{"defaults", read_defaults, false},
};

static const struct key *key_find(const struct node *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (node_is(name, keys[i].name))
			return &keys[i];
	return NULL;
}

/* What is not a field first; the rest is moved together and read as fields. */
static void read_document(struct reader *r, struct node *root)
{
	struct node fields = *root;
	bool leveled = false, defaults = false;

	if (root->kind != NODE_MAP) {
		read_fields(r, "", NULL, root, false);
		return;
	}
	fields.n = 0;
	fields.item = calloc(root->n + 1, sizeof(*fields.item));
	for (size_t i = 0; fields.item && i + 1 < root->n; i += 2) {
		const struct key *key = key_find(root->item[i]);

		leveled |= node_is(root->item[i], "level");
		defaults |= node_is(root->item[i], "defaults");
		if (key && key->policy && !r->policy) {
			source_problem(&r->source, root->item[i],
				       "%s is for the documents of a policy", key->name);
		} else if (key) {
			key->read(r, root->item[i + 1]);
		} else {
			fields.item[fields.n++] = root->item[i];
			fields.item[fields.n++] = root->item[i + 1];
		}
	}
	if (r->doc->nmatch && !leveled)
		r->doc->level = LEVEL_CLASS;
	if (r->doc->warn && defaults)
		source_problem(&r->source, root, "a document that warns has no defaults");
	read_fields(r, "", NULL, &fields, false);
	free(fields.item);
}

/* -------- files -------- */

static void claims_done(struct claim *claim, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(claim[i].key);
		json_decref(claim[i].want);
	}
	free(claim);
}

static void document_free(struct document *doc)
{
	if (!doc)
		return;
	claims_done(doc->claim, doc->n);
	claims_done(doc->match, doc->nmatch);
	free(doc->file);
	free(doc->rule);
	free(doc->because);
	free(doc);
}

int documents_check_rule(const struct documents *docs, const char *rule, const char *where,
			 struct error *err)
{
	for (size_t i = 0; i < docs->n; i++)
		if (docs->doc[i]->level != LEVEL_USER && !strcmp(docs->doc[i]->rule, rule))
			return 0;
	return error_set(err, -EINVAL, "%s is of rule %s, which is not in the policy", where, rule);
}

void documents_done(struct documents *docs)
{
	for (size_t i = 0; i < docs->n; i++)
		document_free(docs->doc[i]);
	free(docs->doc);
	args_done(&docs->problems);
	*docs = (struct documents){0};
}

/* "dir/lu.yaml" and 1 to "lu", 2 to "lu-2". */
static char *rule_of(const char *where, size_t number)
{
	const char *slash = strrchr(where, '/'), *file = slash ? slash + 1 : where;
	const char *dot = strrchr(file, '.');
	int n = dot && dot > file ? (int)(dot - file) : (int)strlen(file);

	return number > 1 ? io_format("%.*s-%zu", n, file, number) : io_format("%.*s", n, file);
}

static struct document *document_add(struct documents *docs, const char *where, size_t number,
				     bool policy)
{
	struct document *doc = calloc(1, sizeof(*doc));
	struct document **grown = realloc(docs->doc, (docs->n + 1) * sizeof(*grown));

	if (grown)
		docs->doc = grown;
	if (doc) {
		doc->file = strdup(where);
		doc->rule = rule_of(where, number);
		doc->level = policy ? LEVEL_SITE : LEVEL_USER;
	}
	if (!grown || !doc || !doc->file || !doc->rule) {
		document_free(doc);
		docs->problems.failed = true;
		return NULL;
	}
	return docs->doc[docs->n++] = doc;
}

void documents_parse(struct documents *docs, const char *text, size_t size, const char *where,
		     bool policy)
{
	struct reader r = {.source = {.where = where, .problems = &docs->problems},
			   .policy = policy};
	size_t problems = docs->problems.n;
	struct node *list = node_parse(&r.source, text, size);

	if (!list)
		docs->problems.failed = true;
	else if (!list->n && docs->problems.n == problems)
		source_problem(&r.source, NULL, "there is no document in it");
	else if (list->n > MAX_DOCUMENTS)
		source_problem(&r.source, list->item[MAX_DOCUMENTS],
			       "there are more than %u documents in it", MAX_DOCUMENTS);
	for (size_t i = 0; list && i < list->n && i < MAX_DOCUMENTS; i++) {
		r.doc = document_add(docs, where, i + 1, policy);
		if (r.doc)
			read_document(&r, list->item[i]);
	}
	node_free(list);
}

void documents_load(struct documents *docs, const char *path, bool policy)
{
	CLEANUP_FREE char *text = NULL;
	struct error err;
	ssize_t size = io_read_file(path, MAX_FILE, &text, &err);

	if (size < 0)
		args_add(&docs->problems, "%s", err.text);
	else
		documents_parse(docs, text, (size_t)size, path, policy);
}
