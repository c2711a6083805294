/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_VOLUME_H
#define WISP_PART_VOLUME_H

/*
 * The files behind a VM's disks, as its description has them (part/spec.h): those that live as long
 * as the VM ("own") are made anew, others when they are not there and their size is known. Blocks.
 */

#include <jansson.h>

#include "lib/args.h"

struct error;

/* Where volumes of this cluster's VMs are on this node: a new string. */
int volume_folder(const char *node, const char *cluster, char **ret, struct error *err);

/* made: paths of those that were made, for volumes_undo(). 0, or -errno and all is undone. */
int volumes_make(const json_t *spec, struct args *made, struct error *err);
void volumes_undo(const struct args *made);

/* The folder that the file is in. */
int volume_make_folder_of(const char *path, struct error *err);

/* Removes those that lived as long as the VM of this name, and the folders that are empty then. */
void volumes_remove(const char *folder, const char *vm);

#endif
