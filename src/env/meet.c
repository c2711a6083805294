/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses documents, collects what they say of each field, and has each field decided. */

#include "env/meet.h"

#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define MAX_ENTRIES 2048  /* of a map, of all documents together */
#define MAX_PATTERNS 1024 /* over them, likewise */

/* -------- selection -------- */

static bool is_waived(const struct document *doc, const struct args *waived)
{
	for (size_t i = 0; waived && i < waived->n; i++)
		if (doc->level != LEVEL_USER && !strcmp(waived->v[i], doc->rule))
			return true;
	return false;
}

static void skip(struct meet *m, const struct document *doc, char *why, bool waived)
{
	struct skipped *grown = realloc(m->skipped, (m->nskipped + 1) * sizeof(*grown));

	if (!grown || !why) {
		free(why);
		m->failed = true;
		return;
	}
	m->skipped = grown;
	grown[m->nskipped++] = (struct skipped){doc, why, waived};
}

static int compare_skipped(const void *pa, const void *pb)
{
	const struct skipped *a = pa, *b = pb;
	int r = strcmp(a->doc->rule, b->doc->rule);

	return r ?: strcmp(a->doc->file, b->doc->file);
}

/* Each document once. */
static void sort_skipped(struct meet *m)
{
	size_t n = 0;

	if (m->nskipped)
		qsort(m->skipped, m->nskipped, sizeof(*m->skipped), compare_skipped);
	for (size_t i = 0; i < m->nskipped; i++)
		if (!i || compare_skipped(&m->skipped[n - 1], &m->skipped[i]))
			m->skipped[n++] = m->skipped[i];
		else
			free(m->skipped[i].why);
	m->nskipped = n;
}

/* Whether the document takes part; it is noted when not. */
static bool takes_part(struct meet *m, const struct document *doc, const json_t *facts,
		       const struct args *waived)
{
	char *why = NULL;

	if (is_waived(doc, waived))
		skip(m, doc, strdup("a waiver"), true);
	else if (facts_match(facts, doc, &why))
		return true;
	else
		skip(m, doc, why, false);
	return false;
}

/* -------- claims -------- */

static int compare_texts(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) : !!a - !!b;
}

/* Near levels first, then by rule and place. */
static int compare_claims(const void *pa, const void *pb)
{
	const struct claim *a = *(const struct claim *const *)pa;
	const struct claim *b = *(const struct claim *const *)pb;
	int r = (a->field > b->field) - (a->field < b->field);

	r = r ?: (int)a->doc->level - (int)b->doc->level;
	r = r ?: strcmp(a->doc->rule, b->doc->rule);
	r = r ?: strcmp(a->doc->file, b->doc->file);
	r = r ?: (a->line > b->line) - (a->line < b->line);
	r = r ?: (a->column > b->column) - (a->column < b->column);
	return r ?: compare_texts(a->key, b->key);
}

static void claims_add(struct claims *list, const struct claim *claim)
{
	const struct claim **grown = list->claim;

	if (!(list->n & (list->n - 1)))
		grown = realloc(list->claim, (list->n ? 2 * list->n : 1) * sizeof(*grown));
	if (!grown) {
		list->failed = true;
		return;
	}
	list->claim = grown;
	grown[list->n++] = claim;
}

static void claims_sort(struct claims *list)
{
	size_t n = 0;

	if (list->n)
		qsort(list->claim, list->n, sizeof(*list->claim), compare_claims);
	for (size_t i = 0; i < list->n; i++)
		if (!i || compare_claims(&list->claim[n - 1], &list->claim[i]) ||
		    !json_equal(list->claim[n - 1]->want, list->claim[i]->want))
			list->claim[n++] = list->claim[i];
	list->n = n;
}

/* All that was said, by what becomes of it. */
struct collection {
	struct claims said, defaults, warnings;
};

static void collect(struct meet *m, const struct documents *docs, const json_t *facts,
		    const struct args *waived, struct collection *ret)
{
	for (size_t i = 0; i < docs->n; i++) {
		const struct document *doc = docs->doc[i];

		if (!takes_part(m, doc, facts, waived))
			continue;
		for (size_t j = 0; j < doc->n; j++)
			claims_add(doc->warn		      ? &ret->warnings
				   : doc->claim[j].is_default ? &ret->defaults
							      : &ret->said,
				   &doc->claim[j]);
	}
	sort_skipped(m);
	claims_sort(&ret->said);
	claims_sort(&ret->defaults);
	claims_sort(&ret->warnings);
	m->failed |= ret->said.failed || ret->defaults.failed || ret->warnings.failed;
}

/* -------- fields -------- */

static void decision_done(struct decision *d)
{
	free(d->key);
	free(d->name);
	json_decref(d->value);
	free(d->claim);
	free(d->dropped);
	free(d->why);
	free(d->fix);
}

/* Whether its field means nothing here, since another one is of another kind. */
static bool is_idle(const struct meet *m, const struct field *field)
{
	const struct decision *of = field->of ? meet_find(m, field->of) : NULL;

	return of && of->value && strcmp(json_string_value(of->value), field->kind) != 0;
}

/* A rule may speak of all networks, say. A user who does so expects something of it. */
static void set_idle(struct decision *d)
{
	const struct field *f = d->field;

	json_decref(d->value);
	free(d->why);
	free(d->fix);
	d->value = NULL;
	d->why = d->fix = NULL;
	d->by = BY_NOBODY;
	d->idle = true;
	d->missing = d->n && d->claim[0]->doc->level == LEVEL_USER;
	if (d->missing) {
		d->why = io_format("it is of %s: %s alone", f->of, f->kind);
		d->fix = io_format("%s: %s", f->of, f->kind);
	}
}

static struct decision *decision_add(struct meet *m, const struct collection *c,
				     const struct field *field, const char *key)
{
	struct decision *grown = m->d, d = {.field = field};

	if (!(m->n & (m->n - 1)))
		grown = realloc(m->d, (m->n ? 2 * m->n : 1) * sizeof(*grown));
	if (grown)
		m->d = grown;
	d.key = key ? strdup(key) : NULL;
	d.name = field_name(field, key);
	if (!grown || !d.name || (key && !d.key) ||
	    !decide(field, key, &c->said, &c->defaults, &d)) {
		decision_done(&d);
		m->failed = true;
		return NULL;
	}
	if (is_idle(m, field))
		set_idle(&d);
	m->d[m->n] = d;
	return &m->d[m->n++];
}

static bool is_entry_of(const struct field *field, const struct field *map)
{
	size_t n = strlen(map->path);

	return !strncmp(field->path, map->path, n) && !strncmp(field->path + n, ".*", 2);
}

/* An entry has one of what it needs, or it has to be said. */
static void check_needs(struct meet *m, size_t entry)
{
	struct decision *d = &m->d[entry];
	bool met = false;

	for (size_t i = entry + 1; i < m->n && !met; i++) {
		const char *last = strrchr(m->d[i].field->path, '.') + 1;
		const char *need = strstr(d->field->needs, last);

		met = need && (m->d[i].value || m->d[i].why);
	}
	if (!met) {
		d->missing = true;
		d->why = io_format("it needs %s", d->field->needs);
		d->fix = io_format("%s: {%.*s: ...}", d->name, (int)strcspn(d->field->needs, "|"),
				   d->field->needs);
	}
}

static void decide_entry(struct meet *m, const struct collection *c, const struct field *map,
			 const char *key)
{
	size_t entry = m->n;
	const struct decision *d = decision_add(m, c, map, key);

	if (!d || d->why)
		return;
	/* An entry that is one value has one decision. */
	if (field_of_entries(map))
		decision_done(&m->d[--m->n]);
	for (size_t i = 0; i < env_nfields; i++)
		if (is_entry_of(&env_fields[i], map))
			decision_add(m, c, &env_fields[i], key);
	if (map->needs)
		check_needs(m, entry);
}

static int compare_words(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts them, and keeps each once. Returns how many that are. */
static size_t unique_words(const char **word, size_t n)
{
	size_t kept = 0;

	if (n)
		qsort(word, n, sizeof(*word), compare_words);
	for (size_t i = 0; i < n; i++)
		if (!i || strcmp(word[kept - 1], word[i]))
			word[kept++] = word[i];
	return kept;
}

/* Each entry is held against all claims: there must not be any number of them, or of patterns. */
static void refuse_map(struct meet *m, const struct collection *c, const struct field *map,
		       unsigned most, const char *of)
{
	struct decision *d = decision_add(m, c, map, NULL);

	if (d)
		d->why = io_format("there are more than %u %s", most, of);
}

static size_t count_patterns(const struct claims *list, const struct field *map)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += list->claim[i]->key && is_pattern(list->claim[i]->key) &&
		     (list->claim[i]->field == map || is_entry_of(list->claim[i]->field, map));
	return n;
}

/* Each key that somebody wants to be there. */
static void decide_map(struct meet *m, const struct collection *c, const struct field *map)
{
	CLEANUP_FREE const char **key = calloc(c->said.n + 1, sizeof(*key));
	size_t n = 0;

	for (size_t i = 0; key && i < c->said.n; i++)
		if (c->said.claim[i]->field == map && json_is_true(c->said.claim[i]->want))
			key[n++] = c->said.claim[i]->key;
	m->failed |= !key;
	n = unique_words(key, n);
	if (n > MAX_ENTRIES)
		refuse_map(m, c, map, MAX_ENTRIES, "entries");
	else if (count_patterns(&c->said, map) + count_patterns(&c->defaults, map) > MAX_PATTERNS)
		refuse_map(m, c, map, MAX_PATTERNS, "patterns over its entries");
	else
		for (size_t i = 0; i < n; i++)
			decide_entry(m, c, map, key[i]);
}

static int compare_decisions(const void *a, const void *b)
{
	return strcmp(((const struct decision *)a)->name, ((const struct decision *)b)->name);
}

static void decide_all(struct meet *m, const struct collection *c)
{
	for (size_t i = 0; i < env_nfields; i++) {
		const struct field *f = &env_fields[i];

		if (f->type == &type_map)
			decide_map(m, c, f);
		else if (!strchr(f->path, '*'))
			decision_add(m, c, f, NULL);
	}
	if (m->n)
		qsort(m->d, m->n, sizeof(*m->d), compare_decisions);
	for (size_t i = 0; i < m->n; i++)
		m->conflicts += m->d[i].why != NULL;
}

/* -------- warnings -------- */

bool claim_holds(const struct claim *claim, const json_t *value)
{
	const struct field *f = claim->field;
	json_t *nothing = f->type == &type_map				   ? json_false()
			  : f->type == &type_set || f->type == &type_steps ? json_array()
									   : NULL;
	bool holds = (value || nothing) && f->type->holds(f, claim->want, value ?: nothing);

	json_decref(nothing);
	return holds;
}

static void warn(struct meet *m, const struct claim *claim, const char *key, const json_t *value)
{
	struct warning *grown = realloc(m->warning, (m->nwarnings + 1) * sizeof(*grown));
	struct warning w = {.claim = claim, .name = field_name(claim->field, key)};

	if (grown)
		m->warning = grown;
	if (value)
		w.value = value_text(claim->field, value);
	if (!grown || !w.name) {
		free(w.name);
		free(w.value);
		m->failed = true;
		return;
	}
	grown[m->nwarnings++] = w;
}

static void check_warning(struct meet *m, const struct claim *claim)
{
	bool found = false;

	for (size_t i = 0; i < m->n; i++) {
		const struct decision *d = &m->d[i];

		if (d->field != claim->field || !claim_is_of(claim, d->key) || d->why)
			continue;
		if (d->idle)
			return;
		found = true;
		if (!claim_holds(claim, d->value))
			warn(m, claim, d->key, d->value);
	}
	if (!found && claim->field->type == &type_map && !claim_holds(claim, NULL))
		warn(m, claim, claim->key, NULL);
}

/* -------- all of it -------- */

/* What a field of the environment comes to, as the fact of its name; NULL: that is open. */
static json_t *as_fact(const struct meet *m, const char *name)
{
	const struct decision *d = meet_find(m, name);

	if (!d || !d->value)
		return NULL;
	/* Not limited, that is. */
	return json_is_string(d->value) ? json_integer(fact_find(name)->max)
					: json_incref(d->value);
}

static bool has(const json_t *list, const json_t *value)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (json_equal(item, value))
			return true;
	return false;
}

/* Whether there is one more. */
static bool add_own_fact(struct meet *m, const char *name, json_t *facts)
{
	json_t *value = as_fact(m, name), *list = json_object_get(facts, name);
	bool more = value && !has(list, value);

	if (more && !list && json_object_set_new(facts, name, list = json_array()))
		m->failed = true;
	if (more && json_array_append(list, value))
		m->failed = true;
	json_decref(value);
	return more;
}

/* What the environment itself comes to is not to be believed, but known. */
static bool add_own_facts(struct meet *m, json_t *facts)
{
	bool walltime = add_own_fact(m, "walltime", facts), vms = add_own_fact(m, "vms", facts);

	return walltime || vms;
}

static void meet_chosen(const struct documents *docs, const json_t *facts,
			const struct args *waived, struct meet *ret)
{
	struct collection c = {0};

	*ret = (struct meet){0};
	collect(ret, docs, facts, waived, &c);
	decide_all(ret, &c);
	for (size_t i = 0; i < c.warnings.n; i++)
		check_warning(ret, c.warnings.claim[i]);
	free(c.said.claim);
	free(c.defaults.claim);
	free(c.warnings.claim);
}

/* Facts only become more, and with them the documents that take part: it ends when none comes. */
void meet_documents(const struct documents *docs, const json_t *facts, const struct args *waived,
		    struct meet *ret)
{
	json_t *all = facts ? json_deep_copy(facts) : json_object();

	*ret = (struct meet){.failed = !all};
	while (!ret->failed) {
		meet_done(ret);
		meet_chosen(docs, all, waived, ret);
		if (ret->failed || !add_own_facts(ret, all))
			break;
	}
	json_decref(all);
}

void meet_done(struct meet *m)
{
	for (size_t i = 0; i < m->n; i++)
		decision_done(&m->d[i]);
	for (size_t i = 0; i < m->nskipped; i++)
		free(m->skipped[i].why);
	for (size_t i = 0; i < m->nwarnings; i++) {
		free(m->warning[i].name);
		free(m->warning[i].value);
	}
	free(m->d);
	free(m->skipped);
	free(m->warning);
	*m = (struct meet){0};
}

const struct decision *meet_find(const struct meet *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (!strcmp(m->d[i].name, name))
			return &m->d[i];
	return NULL;
}
