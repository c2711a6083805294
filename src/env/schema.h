/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_SCHEMA_H
#define WISP_ENV_SCHEMA_H

/*
 * The table of an environment's fields. Checks, the reader, help and wisp-environment(5) come
 * from it. Any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "env/type.h"

enum unit { UNIT_COUNT, UNIT_SIZE, UNIT_DURATION };

struct field {
	const char *path; /* "memory", "checkpoint.keep"; "files.*.mode": of a map's entries */
	const struct type *type;
	/* Of a text, an item or a map's key: NULL when it is good, else what it should be. */
	const char *(*check)(const char *text);
	const char *words;     /* instead: "lz4|zstd", all there are */
	enum unit unit;	       /* of a number */
	int64_t min, max;      /* of a number, in bytes or milliseconds */
	bool exact;	       /* of a text: "*" and "?" are themselves, not patterns */
	bool keyed;	       /* of a set: items are NAME or NAME=VALUE */
	const char *needs;     /* of a map: one of these an entry must have, "size|path" */
	const char *of, *kind; /* only where the field "of" (above it) is "kind"; else ignored */
	const char *builtin;   /* as it is written; NULL: left out unless somebody says it */
	const char *text;      /* what it is, a paragraph */
	const char *example;   /* YAML */
};

extern const struct field env_fields[];
extern const size_t env_nfields;

/* The field of a path; map keys are "*". NULL: there is none. */
const struct field *field_find(const char *path);

/* Whether fields begin with "path.": "checkpoint" is no field, but has some. */
bool field_is_group(const char *path);

/* The entry's value itself of a map whose entries are one value ("environment.*"), or NULL. */
const struct field *field_of_entries(const struct field *map);

/* The nearest of those below "prefix." ("": all) when one is near, as the word behind it. */
const char *field_nearest(const char *prefix, const char *word, char *buf, size_t size);

/* The field's path with the key in it: "files[/etc/motd].mode". New string; NULL: no memory. */
char *field_name(const struct field *field, const char *key);

/* The rows as text for a terminal; those whose path begins with name (NULL: all, in short). */
bool fields_print(FILE *out, const char *name);
/* The rows as scdoc, for the man page. */
void fields_man(FILE *out);
/* The rows as JSON: a new reference. */
json_t *fields_json(const char *name);

#endif
