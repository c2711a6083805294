/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_TYPE_H
#define WISP_ENV_TYPE_H

/*
 * The types of fields: how a constraint is read, and what several of them leave together. A
 * constraint ("want") and a value are JSON, so that they can be compared, sorted and kept:
 *
 *     type     want                                   value
 *     text     ["debian:*", "image:x"], any of them   "debian:bookworm"
 *     flag     true                                   true
 *     number   [[1, 8], [16, 16]], any of them        4
 *     set      {"require", "allow", "forbid": [...]}  ["a", "b"], sorted
 *     map      true (this key is there) or false      (its entries are fields of their own)
 *     steps    [{"step", "run", "after": [...]}]      [{"step", "run"}] in their order
 *     command  ["mpirun", "./lu"]                     the same
 *
 * All functions are pure; any thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "env/node.h"

struct field;

#define MAX_TEXT 16384u
#define NUMBER_OFF INT64_MAX /* a duration without an end */

enum verdict {
	MEET_OPEN,     /* several values are left, or any */
	MEET_ONE,      /* one is left: *value */
	MEET_CONFLICT, /* none is left: *why says it */
};

struct meeting {
	json_t *value; /* MEET_ONE: new reference */
	char *why;     /* MEET_CONFLICT: to be freed */
};

struct type {
	const char *name;
	/* The constraint a node says: a new reference, or NULL and the problem is told. */
	json_t *(*read)(const struct source *source, const struct field *field,
			const struct node *node);
	/* What an array of constraints leaves. */
	enum verdict (*meet)(const struct field *field, const json_t *wants, struct meeting *ret);
	/* Whether the value is as the constraint wants it. */
	bool (*holds)(const struct field *field, const json_t *want, const json_t *value);
	/* The constraint as a person would write it; a value is the constraint value_want(). */
	void (*show)(const struct field *field, const json_t *want, struct args *ret);
	/*
	 * Of what the constraints leave the value next to another (NULL: to none), new reference;
	 * NULL: there is no such thing. May be NULL itself.
	 */
	json_t *(*nearest)(const struct field *field, const json_t *wants, const json_t *to);
};

extern const struct type type_text, type_flag, type_number, type_set, type_map, type_steps,
	type_command;

/* The constraint that only this value meets: a new reference. */
json_t *value_want(const struct type *type, const json_t *value);

/* The constraint or value as one line in a new string; NULL: no memory. */
char *want_text(const struct field *field, const json_t *want);
char *value_text(const struct field *field, const json_t *value);

/* "*" is any characters, "?" one, as in a shell, but over all of them. */
bool pattern_matches(const char *pattern, const char *text);
bool is_pattern(const char *text);

/* A sorted copy of an array of strings, without doubles: a new reference. */
json_t *texts_sorted(const json_t *texts);
bool texts_contain(const json_t *texts, const char *text);

/* Adds "[a, b]" to the last argument. */
void texts_show(const json_t *texts, struct args *ret);

/*
 * Checks a text of the field (not a pattern) and tells a problem when it is none. what: of what,
 * in messages.
 */
bool check_text(const struct source *source, const struct field *field, const struct node *node);

#endif
