/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_GROW_H
#define WISP_IMAGE_GROW_H

/*
 * The command that unpacks a tree of anybody's, adds packages by its own apt, files and steps, and
 * writes a tar to its standard output. For root of a mount and a process namespace. Messages that
 * begin with "E:" are the reason of a failure.
 */

#include <stdbool.h>

#include "lib/args.h"

/* tree: an OCI layout or a squashfs; work: an empty folder; packages end with NULL. */
void grow_begin(struct args *args, const char *tree, const char *work, bool trim,
		char *const *packages, unsigned nfiles);
/* Then each of the nfiles; each text that follows is a step. */
void grow_file(struct args *args, const char *from, const char *to, unsigned mode);

#endif
