/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_NODELIST_H
#define WISP_JOB_NODELIST_H

/*
 * Lists of nodes as people write them: NAME or NAME@HOST[:PORT], with commas; NAME and HOST may
 * have ranges in brackets, "n[1-4,07-09]". Any thread.
 */

#include <jansson.h>

struct error;

#define NODELIST_MAX 65536u

/* Adds the nodes of a text to a list of texts. -EINVAL: malformed, or a name is there twice. */
int nodelist_add(json_t *list, const char *text, struct error *err);

/* The same of a file: a node or several in each line, "#" begins a remark. */
int nodelist_add_file(json_t *list, const char *path, struct error *err);

/* The NAME of an entry; the result is in buf. */
const char *nodelist_name(const char *entry, char *buf, size_t size);

/* The place of the entry with that name, or -1. */
int nodelist_find(const json_t *list, const char *name);

#endif
