/* SPDX-License-Identifier: Apache-2.0 */
/* A meet as JSON: the closed environment, its digest, and where it comes from. */

#include "env/result.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

/* The object under a key, made when it is not there. */
static json_t *object_under(json_t *object, const char *key)
{
	json_t *inner = json_object_get(object, key);

	if (!inner) {
		inner = json_object();
		json_object_set_new(object, key, inner);
	}
	return inner;
}

/* Puts a value where its path says: each word an object, "*" the entry's key. */
static void put(json_t *tree, const struct decision *d, json_t *value)
{
	CLEANUP_FREE char *path = strdup(d->field->path);
	char *rest = path, *word;

	while ((word = path ? strsep(&rest, ".") : NULL)) {
		const char *key = strcmp(word, "*") ? word : d->key;

		if (rest)
			tree = object_under(tree, key);
		else
			json_object_set_new(tree, key, value);
	}
	if (!path)
		json_decref(value);
}

static json_t *plain_value(const struct decision *d)
{
	bool off = d->field->type == &type_number && json_integer_value(d->value) == NUMBER_OFF;

	return off ? json_string("off") : json_incref(d->value);
}

json_t *result_json(const struct meet *m)
{
	json_t *tree = json_object();

	for (size_t i = 0; tree && i < m->n; i++)
		if (m->d[i].value && m->d[i].field->type != &type_map)
			put(tree, &m->d[i], plain_value(&m->d[i]));
	return tree;
}

char *result_canonical(const json_t *closed)
{
	return json_dumps(closed, JSON_COMPACT | JSON_SORT_KEYS);
}

int result_digest(const json_t *closed, char ret[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *text = result_canonical(closed);

	return text ? digest_bytes(text, strlen(text), ret, err)
		    : error_set(err, -ENOMEM, "out of memory");
}

static json_t *claim_json(const struct claim *claim)
{
	CLEANUP_FREE char *place = claim_place(claim), *text = claim_text(claim);

	return json_pack("{s:s, s:s, s:s?, s:s?, s:s*}", "level", level_name(claim->doc->level),
			 "rule", claim->doc->rule, "at", place, "text", text, "because",
			 claim->doc->because);
}

static json_t *claims_json(const struct claim *const *claim, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, claim_json(claim[i]));
	return list;
}

static const char *by_name(enum by by)
{
	static const char *const names[] = {"nobody", "given", "default", "built-in", "nearest"};

	return names[by];
}

static json_t *decision_json(const struct decision *d)
{
	return json_pack("{s:o?, s:s, s:s*, s:o, s:o}", "value", d->value ? plain_value(d) : NULL,
			 "by", by_name(d->by), "rule", d->from ? d->from->doc->rule : NULL,
			 "constraints", claims_json(d->claim, d->n), "dropped",
			 claims_json(d->dropped, d->ndropped));
}

json_t *result_provenance(const struct meet *m)
{
	json_t *object = json_object();

	for (size_t i = 0; i < m->n; i++)
		if (m->d[i].value || m->d[i].n || m->d[i].ndropped)
			json_object_set_new(object, m->d[i].name, decision_json(&m->d[i]));
	return object;
}

static json_t *conflicts_json(const struct meet *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n; i++)
		if (m->d[i].why)
			json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:s*}", "field",
							      m->d[i].name, "text", m->d[i].why,
							      "constraints",
							      claims_json(m->d[i].claim, m->d[i].n),
							      "fix", m->d[i].fix));
	return list;
}

static json_t *skipped_json(const struct meet *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->nskipped; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:b}", "rule", m->skipped[i].doc->rule,
					"file", m->skipped[i].doc->file, "because",
					m->skipped[i].why, "waived", m->skipped[i].waived));
	return list;
}

static json_t *warnings_json(const struct meet *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->nwarnings; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s*, s:o}", "field", m->warning[i].name,
						"value", m->warning[i].value, "constraint",
						claim_json(m->warning[i].claim)));
	return list;
}

json_t *result_report(const struct meet *m)
{
	json_t *report = json_pack("{s:o, s:o, s:o, s:o}", "provenance", result_provenance(m),
				   "conflicts", conflicts_json(m), "skipped", skipped_json(m),
				   "warnings", warnings_json(m));
	json_t *closed = result_json(m);
	char digest[DIGEST_TEXT];

	if (!m->conflicts && result_digest(closed, digest, NULL) == 0) {
		json_object_set(report, "environment", closed);
		json_object_set_new(report, "digest", json_string(digest));
	}
	json_decref(closed);
	return report;
}
