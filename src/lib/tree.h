/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_TREE_H
#define WISP_LIB_TREE_H

/* Reading facts from files below a root that may be a made-up one. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The path's file exists and may be used so (access(2) mode). */
bool tree_access(const char *root, const char *path, int mode);

/* The first line without its newline, cut to size; false when it cannot be read. */
bool tree_line(const char *root, const char *path, char *buf, size_t size);

/* A file's decimal number; 0 when there is none. */
uint64_t tree_number(const char *root, const char *path);

/* The number of entries that match a glob(7) pattern. */
unsigned tree_count(const char *root, const char *pattern);

/* Calls fn for each of them with the path without the root. */
void tree_each(const char *root, const char *pattern, void (*fn)(const char *path, void *arg),
	       void *arg);

/* Where a symbolic link points to, its last part alone; false when there is none. */
bool tree_link(const char *root, const char *path, char *buf, size_t size);

/* The program is in one of the usual folders. */
bool tree_program(const char *root, const char *name);

#endif
