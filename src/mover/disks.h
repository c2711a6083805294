/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISKS_H
#define WISP_MOVER_DISKS_H

/*
 * The disks that a VM writes to, as the VMM tells: into an epoch, and back
 * (docs/formats/checkpoint.md). Each is a file of its own in the epoch's folder, complete also in
 * an incremental epoch.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mover/disk-live.h"
#include "mover/disks-kept.h"
#include "mover/epoch.h"
#include "mover/vmm.h"
#include "mover/work.h"

struct disks {
	struct disk {
		char id[32]; /* the device's */
		char *path;
		uint64_t size;
		int fd;	  /* the VM's, opened again: without O_DIRECT, and locked by nobody */
		int copy; /* in the epoch, -1 */
		bool cloned;
		bool parent_damaged; /* its copy is not what it was, or ours would be shared */
		uint64_t ns;	     /* that copying took */
		struct disk_live live;
	} * disk;
	size_t n;
};

/* Opens the disks of the VM, for reading or to be written. Close also after a failure. */
int disks_open(struct vmm *vmm, bool write, struct disks *ret, struct error *err);
void disks_close(struct disks *disks);

/* Writes out what the host still has in memory of them, so that a pause need not wait for it. */
int disks_flush(const struct disks *disks, const _Atomic bool *cancel, struct error *err);

/*
 * In a pause: the copies in the folder of an epoch that is being written will have what the disks
 * have now. Takes no longer for large disks.
 */
int disks_take(struct disks *disks, struct vmm *vmm, int dir, struct error *err);

/* Afterwards: makes the copies that are not clones, while the VM runs (gentle) or not. */
int disks_copy(struct disks *disks, struct vmm *vmm, bool gentle, const struct progress *progress,
	       struct error *err);

/*
 * Then: sums and syncs the copies. *files is a new object with what "files" of the manifest
 * is to say of them. A copy that the parent epoch (its folder and its "files"; -1 and NULL: none)
 * has as well becomes the same file, if that is not damaged.
 */
int disks_finish(struct disks *disks, int dir, int parent, const json_t *parent_files,
		 const struct progress *progress, json_t **files, struct error *err);

/* For the report: how each was copied, and what that took. A new object. */
json_t *disks_report(const struct disks *disks);

/* What a restore is to do to the disks of a VM that waits for its state. */
struct disks_plan {
	struct disks disks;
	struct disks_put {
		struct kept kept;
		bool write, loses;
		const char *done; /* for the report */
	} * put;
	bool loses; /* content that somebody may want */
};

/* What is done to a disk that has another content than the epoch. */
enum disks_how {
	DISKS_KEEP,  /* nothing, unless it is empty: refused */
	DISKS_AGAIN, /* it is filled, if it has a part of that and nothing else */
	DISKS_FORCE, /* it is put back */
};

/*
 * Looks at the disks of the VM and at what the epoch, which must stay open, has of them, changes
 * nothing, and keeps others from them. End with disks_plan_done(), also after a failure.
 */
int disks_plan(struct vmm *vmm, const struct epoch *epoch, enum disks_how how,
	       const struct progress *progress, struct disks_plan *ret, struct error *err);
void disks_plan_done(struct disks_plan *plan);

/*
 * Does it, to stable storage, and lets go of the disks: the plan is done. *report is a new object:
 * what was done to each.
 */
int disks_put(struct disks_plan *plan, const struct progress *progress, json_t **report,
	      struct error *err);

/*
 * Makes the file path, which must not be there, with the content that the epoch has in its file
 * name: whole and on stable storage, or not at all. -EBADMSG for damage.
 */
int disks_make(const struct epoch *epoch, const char *name, const char *path,
	       const struct progress *progress, struct error *err);

/* For merges: the disks of an epoch become files of another folder as well. */
int disks_link(const struct epoch *epoch, int dir, json_t *files, struct error *err);

/* Checks the sum of each disk of an epoch. *bytes, when not NULL, grows by what they take. */
int disks_verify(const struct epoch *epoch, const struct progress *progress, uint64_t *bytes,
		 struct error *err);

#endif
