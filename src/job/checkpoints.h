/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_CHECKPOINTS_H
#define WISP_JOB_CHECKPOINTS_H

/*
 * The folder of the checkpoints of a job (docs/formats/job-checkpoint.md): which there are, the
 * epochs they name, and the removal of what is not wanted any more. One process at a time writes to
 * it, or makes a checkpoint in it; reading needs no lock.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "job/manifest.h"
#include "mover/store.h"

struct error;
struct progress;

#define CHECKPOINTS_FILE "checkpoint-%" PRIu64 ".json"
#define CHECKPOINTS_VMS "vm"

struct checkpoints {
	char *path;
	int dir;
	int lock; /* -1 when opened for reading */
};

/* Whether a folder is one of a job, and not of a VM. */
bool checkpoints_are_there(const char *path);

/*
 * Where the checkpoints of a cluster are unless somebody says otherwise, by its closed environment:
 * the caller frees *ret.
 */
int checkpoints_path(const json_t *environment, const char *cluster, char **ret, struct error *err);

/*
 * Opens the folder. For writing it is made when it does not exist (mode 0700), locked (-EBUSY while
 * another process writes to it), and swept of half a manifest.
 */
int checkpoints_open(const char *path, bool write, struct checkpoints *ret, struct error *err);
void checkpoints_close(struct checkpoints *c);

/*
 * For who goes on from a checkpoint in the folder: nobody else does before *ret, which is the
 * caller's, is closed. -EBUSY: somebody does. *ret is -1 where the folder cannot be written.
 */
int checkpoints_claim(const char *path, int *ret, struct error *err);

/* The numbers of all checkpoints, ascending; the caller frees *ret. */
int checkpoints_list(const struct checkpoints *c, uint64_t **ret, size_t *n, struct error *err);

/* The manifest of one, 0: of the newest. -ENOENT when there is none; job_manifest_done(). */
int checkpoints_read(const struct checkpoints *c, uint64_t sequence, struct job_manifest *ret,
		     struct error *err);

/*
 * For who makes a checkpoint. The folder of a VM's epochs, which is made when it is not there:
 * *folder for the manifest, *path to write to; the caller frees both.
 */
int checkpoints_vm(const struct checkpoints *c, const char *name, char **folder, char **path,
		   struct error *err);

/* Opens the epochs of a VM for reading. -EBADMSG when a link would lead out of the folder. */
int checkpoints_store(const struct checkpoints *c, const struct job_vm *vm, struct store *ret,
		      struct error *err);

/* What was verified already. Zeroed at first; free seen. */
struct checkpoints_verified {
	struct checkpoints_seen *seen;
	size_t n, room;
};

/*
 * Every byte of a VM's epoch and of all it is based on, but what was verified already; and that it
 * is the epoch that the manifest means. *bytes is how many were looked at.
 */
int checkpoints_verify_vm(const struct checkpoints *c, const struct job_vm *vm,
			  struct checkpoints_verified *verified, const struct progress *progress,
			  uint64_t *bytes, struct error *err);

struct checkpoints_removed {
	uint64_t *sequence; /* of the checkpoints that are gone; the caller frees it */
	size_t n;
	unsigned epochs; /* that are gone */
	unsigned merged; /* that were made full */
};

/*
 * Keeps the newest checkpoints, at least one, and what they name; epochs of failed checkpoints, and
 * what dead writers left, go as well. Opened for writing. Killed at any moment, what stays can be
 * restored. ret may be NULL.
 */
int checkpoints_prune(const struct checkpoints *c, uint64_t keep, const struct progress *progress,
		      struct checkpoints_removed *ret, struct error *err);

/*
 * The same for who makes checkpoints; keep 0: all stay, and only what no manifest names goes. One
 * that cannot be read does not end it: why is appended to unread (a list), the manifest is left
 * alone, and so is every epoch that it may name.
 */
int checkpoints_tidy(const struct checkpoints *c, uint64_t keep, const struct progress *progress,
		     json_t *unread, struct error *err);

#endif
