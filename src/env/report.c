/* SPDX-License-Identifier: Apache-2.0 */
/* A meet as text for people. */

#include <stdlib.h>
#include <string.h>

#include "env/result.h"
#include "lib/cleanup.h"

static void print_claim(FILE *out, const struct claim *claim)
{
	CLEANUP_FREE char *place = claim_place(claim), *text = claim_text(claim);

	fprintf(out, "    %-8s %s: %s: %s\n", level_name(claim->doc->level), place ?: "?",
		claim->doc->rule, text ?: "?");
	if (claim->doc->because)
		fprintf(out, "             because: %s\n", claim->doc->because);
}

static void print_conflict(FILE *out, const struct decision *d)
{
	fprintf(out, "  %s: %s\n", d->name, d->why);
	for (size_t i = 0; i < d->n; i++)
		print_claim(out, d->claim[i]);
	if (d->fix)
		fprintf(out, "    fix      %s\n", d->fix);
}

void result_print_conflicts(FILE *out, const struct meet *m)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->d[i].why)
			print_conflict(out, &m->d[i]);
}

void result_print_notes(FILE *out, const struct meet *m)
{
	for (size_t i = 0; i < m->nskipped; i++)
		fprintf(out, "left out: rule %s (%s): %s\n", m->skipped[i].doc->rule,
			m->skipped[i].doc->file, m->skipped[i].why);
	for (size_t i = 0; i < m->nwarnings; i++) {
		const struct warning *w = &m->warning[i];
		CLEANUP_FREE char *place = claim_place(w->claim), *text = claim_text(w->claim);

		fprintf(out, "warning: %s is %s, rule %s (%s) wants %s%s%s\n", w->name,
			w->value ?: "left out", w->claim->doc->rule, place ?: "?", text ?: "?",
			w->claim->doc->because ? ": " : "", w->claim->doc->because ?: "");
	}
}

/* Who decided, in words. */
static void print_by(FILE *out, const struct decision *d)
{
	CLEANUP_FREE char *place = d->from ? claim_place(d->from)
				   : d->n  ? claim_place(d->claim[0])
					   : NULL;

	if (d->by == BY_DEFAULT)
		fprintf(out, "default of rule %s, %s", d->from->doc->rule, place ?: "?");
	else if (d->by == BY_BUILTIN)
		fprintf(out, "built-in");
	else if (d->by == BY_NEAREST)
		fprintf(out, "nearest to the built-in %s", d->field->builtin);
	else if (d->by == BY_GIVEN)
		fprintf(out, "%s %s%s", level_name(d->claim[0]->doc->level), place ?: "?",
			d->n > 1 ? " and others" : "");
	else if (d->idle)
		fprintf(out, "nobody: it is of %s: %s alone", d->field->of, d->field->kind);
	else
		fprintf(out, "nobody");
}

static bool is_told(const struct decision *d)
{
	return d->value && d->field->type != &type_map;
}

static void print_dropped(FILE *out, const struct meet *m)
{
	for (size_t i = 0; i < m->n; i++)
		for (size_t j = 0; j < m->d[i].ndropped; j++) {
			const struct claim *claim = m->d[i].dropped[j];
			CLEANUP_FREE char *place = claim_place(claim), *text = claim_text(claim);

			fprintf(out, "dropped: default %s: %s of rule %s (%s) does not fit\n",
				m->d[i].name, text ?: "?", claim->doc->rule, place ?: "?");
		}
}

void result_print(FILE *out, const struct meet *m)
{
	int wide = 5, value_wide = 5;

	for (size_t i = 0; i < m->n; i++) {
		CLEANUP_FREE char *text =
			is_told(&m->d[i]) ? value_text(m->d[i].field, m->d[i].value) : NULL;
		int n = text ? (int)strlen(text) : 0, name = text ? (int)strlen(m->d[i].name) : 0;

		wide = name > wide ? name : wide;
		value_wide = n > value_wide && n <= 40 ? n : value_wide;
	}
	fprintf(out, "%-*s  %-*s  %s\n", wide, "FIELD", value_wide, "VALUE", "BY");
	for (size_t i = 0; i < m->n; i++) {
		CLEANUP_FREE char *text = NULL;

		if (!is_told(&m->d[i]))
			continue;
		text = value_text(m->d[i].field, m->d[i].value);
		fprintf(out, "%-*s  %-*s  ", wide, m->d[i].name, value_wide, text ?: "?");
		print_by(out, &m->d[i]);
		fputc('\n', out);
	}
	print_dropped(out, m);
	result_print_notes(out, m);
	if (m->conflicts)
		fprintf(out, "%zu conflict%s:\n", m->conflicts, m->conflicts > 1 ? "s" : "");
	result_print_conflicts(out, m);
}

/* Whether the field is the one that is asked for, or one below it. */
static bool is_below(const char *name, const char *asked)
{
	size_t n = strlen(asked);

	return !strncmp(name, asked, n) && (!name[n] || name[n] == '.' || name[n] == '[');
}

unsigned result_print_why(FILE *out, const struct meet *m, const char *name)
{
	unsigned found = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct decision *d = &m->d[i];
		CLEANUP_FREE char *text = d->value ? value_text(d->field, d->value) : NULL;

		if (!is_below(d->name, name))
			continue;
		found++;
		fprintf(out, "%s: %s, by ", d->name, d->why ? d->why : text ?: "left out");
		print_by(out, d);
		fputc('\n', out);
		for (size_t j = 0; j < d->n; j++)
			print_claim(out, d->claim[j]);
		for (size_t j = 0; j < d->ndropped; j++) {
			fprintf(out, "    a default that does not fit:\n");
			print_claim(out, d->dropped[j]);
		}
		if (d->field->builtin && d->by != BY_BUILTIN)
			fprintf(out, "    built-in %s\n", d->field->builtin);
		if (d->fix)
			fprintf(out, "    fix      %s\n", d->fix);
	}
	return found;
}
