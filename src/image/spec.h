/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_SPEC_H
#define WISP_IMAGE_SPEC_H

/* What an image is made of: the fields of an environment that say it, in order. Any thread. */

#include <jansson.h>
#include <stdbool.h>

struct error;
struct meet;

/* A file that is copied into the root. */
struct spec_file {
	char *from;    /* where it is */
	char *to;      /* absolute path in the image */
	unsigned mode; /* 0: 0755 when the source is executable, else 0644 */
};

/* What the root grows out of. */
enum spec_base { SPEC_DEBIAN, SPEC_IMAGE, SPEC_OCI };

struct spec {
	char *name; /* NULL when not given */
	enum spec_base base;
	char *from;	   /* SPEC_IMAGE: NAME or NAME@sha256:DIGEST; SPEC_OCI: reference */
	char *release;	   /* Debian code name, NULL: the machine's own, or the base's */
	char *kernel;	   /* kernel package */
	char *compression; /* of the root: lz4, zstd, gzip or xz */
	char **packages;   /* lists end with NULL and are never NULL */
	char **modules;	   /* kernel modules beyond those every image has */
	char **run;	   /* shell steps in the new root */
	struct spec_file *files;
	unsigned nfiles;
	bool only_signed; /* the base has to have a signature that is trusted */
	bool trim;	  /* without documentation, manual pages and translations */
};

/*
 * Takes it out of a meet without conflicts. Files are beside the document that names them: of
 * several that name the same, the site's. Returns 0 or -ENOMEM; free with
 * spec_done().
 */
int spec_from_meet(const struct meet *meet, struct spec *ret, struct error *err);
void spec_done(struct spec *spec);

/*
 * The fields of the environment that an image is made of, closed, with what base turned out to
 * be: a new reference or NULL.
 */
json_t *spec_environment(const struct meet *meet, const char *base);

#endif
