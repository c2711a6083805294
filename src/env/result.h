/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_RESULT_H
#define WISP_ENV_RESULT_H

/* What a meet comes to, for programs and for people. Any thread. */

#include <stdio.h>

#include "env/meet.h"
#include "lib/digest.h"

/* The closed environment as a tree: a new reference. */
json_t *result_json(const struct meet *meet);

/* Its canonical form: sorted keys, no white space. New string; NULL: no memory. */
char *result_canonical(const json_t *closed);
int result_digest(const json_t *closed, char ret[DIGEST_TEXT], struct error *err);

/* Where each value comes from, by the field's name: a new reference. */
json_t *result_provenance(const struct meet *meet);

/*
 * All of it: {"environment", "digest", "provenance", "conflicts", "skipped", "warnings"}, without
 * the first two when there are conflicts. A new reference.
 */
json_t *result_report(const struct meet *meet);

/* The conflicts as text, each with all that takes part and what would do. */
void result_print_conflicts(FILE *out, const struct meet *meet);
/* Documents that took no part, and warnings. */
void result_print_notes(FILE *out, const struct meet *meet);
/* A table of values and who decided; then conflicts and notes. */
void result_print(FILE *out, const struct meet *meet);
/* All about the fields of that name, or that begin with it. Returns how many there are. */
unsigned result_print_why(FILE *out, const struct meet *meet, const char *name);

#endif
