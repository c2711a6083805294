/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_DOCUMENT_H
#define WISP_ENV_DOCUMENT_H

/*
 * Documents (docs/formats/environment.md) as claims: a field, a constraint, and who says it where.
 * Any thread; a set of documents is for one at a time.
 */

#include <stdbool.h>
#include <stddef.h>

#include "env/schema.h"
#include "lib/args.h"

struct error;

/* Who speaks, from near to far. */
enum level { LEVEL_USER, LEVEL_PROJECT, LEVEL_CLASS, LEVEL_SITE };
const char *level_name(enum level level);

struct document;

struct claim {
	const struct field *field; /* of the environment; of the facts in a match */
	char *key;		   /* of a map's entry, may be a pattern; else NULL */
	json_t *want;
	const struct document *doc;
	unsigned line, column;
	bool is_default;
};

struct document {
	char *file, *rule, *because; /* because: NULL when it says none */
	enum level level;
	bool warn;	     /* what does not hold is told, and changes nothing */
	struct claim *claim; /* what it says and its defaults */
	size_t n;
	struct claim *match; /* of facts, all of which must hold */
	size_t nmatch;
};

struct documents {
	struct document **doc;
	size_t n;
	struct args
		problems; /* lines "FILE:LINE:COLUMN: ..."; with one nothing here is to be used */
};

/*
 * Adds the documents of a text; where is its name. policy: they are the site's, and may have
 * levels, matches and warnings. What is wrong is added to the problems.
 */
void documents_parse(struct documents *docs, const char *text, size_t size, const char *where,
		     bool policy);
/* The same of a file. */
void documents_load(struct documents *docs, const char *path, bool policy);

/*
 * All *.yaml of a folder, as policy. Two rules of one name are a problem. A folder that is not
 * there is one, too.
 */
void documents_load_policy(struct documents *docs, const char *folder);

/* Whether the policy has a rule of that name, which a waiver (where: its name) is of: 0 or -EINVAL.
 */
int documents_check_rule(const struct documents *docs, const char *rule, const char *where,
			 struct error *err);

void documents_done(struct documents *docs);

/* "FILE:LINE:COLUMN" in a new string; NULL: no memory. */
char *claim_place(const struct claim *claim);

/* The claim's constraint as a line; NULL: no memory. */
char *claim_text(const struct claim *claim);

/* Whether the claim speaks of this key (NULL: of a field that has none). */
bool claim_is_of(const struct claim *claim, const char *key);

#endif
