/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_RESTORE_DISKS_H
#define WISP_VMS_RESTORE_DISKS_H

/* Where the disks of a VM that is restored are. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/args.h"

struct error;

struct restore_disks {
	const char *dir;	  /* folder of the checkpoint */
	uint64_t epoch;		  /* of it */
	const json_t *files;	  /* "files" of its manifest */
	const struct args *given; /* paths for the disks that the VM writes, in order */
	bool force;		  /* also where only the checkpoint says a disk is */
};

/*
 * Puts the paths that were given in the place of those of the writable disks of a configuration,
 * and makes the files that are not there, with the content they had. Where only the checkpoint says
 * where a disk is, nothing is written without force: whoever made it may have named any file.
 * made gets the paths of those that were made.
 */
int restore_disks(const struct restore_disks *request, json_t *config, struct args *made,
		  struct error *err);

/* Removes what was made. */
void restore_disks_undo(const struct args *made);

#endif
