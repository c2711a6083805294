/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_BASE_H
#define WISP_IMAGE_BASE_H

/* What a root grows out of: Debian's packages alone, another image, a container image. Any thread.
 */

#include <stdbool.h>

#include "lib/digest.h"

struct error;
struct spec;

/* Strings are the structure's. */
struct base {
	char *text;		  /* the closed value of the field "base" */
	char *tree;		  /* a squashfs or OCI layout; NULL: nothing */
	char digest[DIGEST_TEXT]; /* of the image or container image; empty: none */
	char *release;		  /* Debian's code name, or NULL: it is no Debian of ours */
	char *note;		  /* NULL or one line for the user */
};

/*
 * Finds the base of a specification and checks that it is the one that is meant, and whole. name
 * is that of the image to be made, which cannot be its own base; refresh: a container image is
 * copied again; keys: the folder for those that
 * have to be signed. 0, -ENOENT, or -EBADMSG when its digest is another.
 */
int base_get(const struct spec *spec, const char *name, bool refresh, const char *keys,
	     struct base *ret, struct error *err);
void base_done(struct base *base);

#endif
