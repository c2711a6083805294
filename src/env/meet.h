/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_MEET_H
#define WISP_ENV_MEET_H

/*
 * What all documents together leave of each field, and what it becomes. The order of documents,
 * and one that is there twice, make no difference. Any thread.
 */

#include "env/document.h"
#include "env/facts.h"

enum by {
	BY_NOBODY,  /* left out */
	BY_GIVEN,   /* the constraints leave one value */
	BY_DEFAULT, /* of a document: from */
	BY_BUILTIN,
	BY_NEAREST, /* of what is left, next to the built-in default */
};

/* A field, or the entry of a map (whose value is true). */
struct decision {
	const struct field *field;
	char *key;  /* of a map's entry, else NULL */
	char *name; /* of field and key: field_name() */
	json_t *value;
	enum by by;
	const struct claim *from;   /* BY_DEFAULT */
	const struct claim **claim; /* all constraints of it, sorted */
	size_t n;
	const struct claim **dropped; /* defaults that do not fit */
	size_t ndropped;
	bool idle;    /* its field's "of" is of another kind: it is left out, whatever rules say */
	char *why;    /* a conflict, or it has to be said; else NULL */
	bool missing; /* with why: another document could still say it */
	char *fix;    /* what would do, when something would */
};

struct skipped {
	const struct document *doc;
	char *why;
	bool waived;
};

struct warning {
	const struct claim *claim;
	char *name, *value; /* of the field; value NULL: it is left out */
};

struct meet {
	struct decision *d; /* sorted by name */
	size_t n, conflicts;
	struct skipped *skipped;
	size_t nskipped;
	struct warning *warning;
	size_t nwarnings;
	bool failed; /* out of memory: nothing here is to be used */
};

/*
 * Meets the documents that concern a request, of which walltime and vms of the environment that
 * comes of it are facts as well. waived: rules of the policy that are left out.
 * Claims and documents of the result are those of docs. Frees with meet_done().
 */
void meet_documents(const struct documents *docs, const json_t *facts, const struct args *waived,
		    struct meet *ret);
void meet_done(struct meet *meet);

/* The decision of that name, or NULL. */
const struct decision *meet_find(const struct meet *meet, const char *name);

/* Whether a value (NULL: left out) is what a claim wants. */
bool claim_holds(const struct claim *claim, const json_t *value);

/* -------- between the files of the meet -------- */

/* Sorted claims, each once. */
struct claims {
	const struct claim **claim;
	size_t n;
	bool failed;
};

/* Decides one field of one entry: fills all but name of a zeroed decision. */
bool decide(const struct field *field, const char *key, const struct claims *said,
	    const struct claims *defaults, struct decision *ret);

/* What would do instead of what the nearest level says; NULL: nothing. */
char *find_fix(const struct decision *d);

/* The constraints of claims as an array: a new reference. Those of the user only if wanted. */
json_t *claims_wants(const struct claim *const *claim, size_t n, bool user);

#endif
