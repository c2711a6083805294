/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_SAVE_FOLDER_H
#define WISP_JOB_SAVE_FOLDER_H

/*
 * The folder of a cluster's checkpoints while one is made (docs/formats/job-checkpoint.md), in
 * threads of its own: it may be on a file system that takes its time. For the thread of the loop.
 */

#include <jansson.h>
#include <stdint.h>

struct error;
struct loop;
struct save_folder;

/* What was to be done is, or (-errno) cannot be. Not out of a call. */
typedef void save_folder_fn(void *arg, int code, const char *reason);

/* path: absolute, made if need be; cluster: its name; job: its id. 0 or -errno. */
int save_folder_create(struct loop *loop, const char *path, const char *cluster, const char *job,
		       struct save_folder **ret, struct error *err);
/* Also while something is done, which goes on: nobody is told then. Accepts NULL. */
void save_folder_destroy(struct save_folder *f);

/*
 * Locks it, removes what no manifest names, and finds the number of the new checkpoint. -EEXIST: it
 * has checkpoints of another job, and stays as it is.
 */
int save_folder_open(struct save_folder *f, save_folder_fn *fn, void *arg, struct error *err);
uint64_t save_folder_sequence(const struct save_folder *f);
/* When it is open: [what is damaged there, or cannot be removed, in words], which stays. */
const json_t *save_folder_notes(const struct save_folder *f);

/*
 * Writes the manifest of what `content` has (taken): name, subnet, digest, environment,
 * documents, vms [{name, address, node, epoch, digest, at, pause_ns}], tasks [{vm, id, stdout,
 * stderr}], report. When that is done there is a checkpoint.
 */
int save_folder_write(struct save_folder *f, json_t *content, save_folder_fn *fn, void *arg,
		      struct error *err);
/* Keeps the last checkpoints, at least one. It may take as long as many checkpoints do. */
int save_folder_prune(struct save_folder *f, uint64_t keep, save_folder_fn *fn, void *arg,
		      struct error *err);
const char *save_folder_path(const struct save_folder *f);
/* Between the first and the last VM's cut; of what was written. */
uint64_t save_folder_skew(const struct save_folder *f);

#endif
