/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_SEALED_H
#define WISP_LIB_SEALED_H

/*
 * Files of JSON that say of themselves what they are (`format`, a number) and that they are whole:
 * `digest` is the SHA-256 of the text without that field. Written with sorted keys and an indent of
 * 1, and refused unless it is exactly these bytes: any damage is found. Any thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/digest.h"

struct error;

/* Adds its digest to the object. *ret is the text, for free(). */
int sealed_text(json_t *json, char **ret, char digest[DIGEST_TEXT], struct error *err);

/*
 * Checks text, called name in errors. Returns 0, a new reference to the object and its digest;
 * -EBADMSG for damage, -EPROTONOSUPPORT for another format.
 */
int sealed_parse(const char *text, size_t size, const char *name, int format, json_t **ret,
		 char digest[DIGEST_TEXT], struct error *err);

/* The same of a file of at most max bytes in a folder. -ENOENT when there is none. */
int sealed_read(int dir, const char *file, size_t max, const char *name, int format, json_t **ret,
		char digest[DIGEST_TEXT], struct error *err);

/*
 * Adds its digest to the object and writes it into the folder: under another name (FILE.tmp),
 * synced, renamed. The caller syncs the folder. Without replace -EEXIST when the file is there.
 */
int sealed_write(int dir, const char *file, json_t *json, bool replace, char digest[DIGEST_TEXT],
		 struct error *err);

#endif
