/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_RESTORE_DISKS_H
#define WISP_CLI_RESTORE_DISKS_H

/* Where the disks of a VM that is restored are. */

#include <jansson.h>

#include "lib/args.h"

struct error;

/*
 * Puts the paths that were given, in order, in the place of those of the writable disks of a
 * configuration, and makes the files that are not there, empty and of the size that the epoch (its
 * "files") has. made gets the paths of those.
 */
int restore_disks(json_t *config, const json_t *files, const struct args *given, struct args *made,
		  struct error *err);

/* Removes what was made. */
void restore_disks_undo(const struct args *made);

#endif
