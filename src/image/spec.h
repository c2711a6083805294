/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_SPEC_H
#define WISP_IMAGE_SPEC_H

/* Image specifications: the YAML of docs/formats/image.md. Any thread. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct error;

/* A file that is copied into the root. */
struct spec_file {
	char *from;    /* path beside the spec */
	char *to;      /* absolute path in the image */
	unsigned mode; /* 0: 0755 when the source is executable, else 0644 */
};

struct spec {
	char *name;	   /* NULL when not given */
	char *release;	   /* Debian code name, NULL: the machine's own */
	char *kernel;	   /* kernel package */
	char *compression; /* of the root: lz4, zstd, gzip or xz */
	char **packages;   /* lists end with NULL and are never NULL */
	char **modules;	   /* kernel modules beyond those every image has */
	char **run;	   /* shell steps in the new root */
	struct spec_file *files;
	unsigned nfiles;
	bool trim; /* without documentation, manual pages and translations */
};

/*
 * Parses and checks a specification. Errors begin with "where:LINE:COLUMN: ". Returns 0 or
 * -EINVAL; free with spec_done().
 */
int spec_parse(const char *text, size_t size, const char *where, struct spec *ret,
	       struct error *err);
int spec_load(const char *path, struct spec *ret, struct error *err);
void spec_done(struct spec *spec);

/* The specification with all defaults filled in, as JSON: a new reference or NULL. */
json_t *spec_json(const struct spec *spec);

#endif
