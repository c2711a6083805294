/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_OPERATION_H
#define WISP_MOVER_OPERATION_H

/* What wisp-mover does, once a process: operations on a VM that a VMM runs. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mover/write.h"

struct error;
struct steps;

struct checkpoint_request {
	const char *control;   /* the VMM's control socket */
	const char *dir;       /* folder of the checkpoint */
	bool live;	       /* the VM runs while most is written */
	bool incremental;      /* on the newest epoch; full when there is none */
	bool track;	       /* the VMM logs what is written until the next one */
	bool leave_paused;     /* for a suspend: the VM is not to run again */
	unsigned downtime_ms;  /* live: the pause to aim for */
	unsigned max_pause_ms; /* live: -EAGAIN when it would be longer; 0: as long as it takes */
	bool throttle; /* live: vCPUs that write faster than we do may be slower meanwhile */
	enum compression compression;
	const json_t *config; /* what the caller wants kept with it, or NULL */
	const char *image;    /* digest of the guest's image, or NULL */
	const struct progress *progress;
	struct steps *steps; /* who says when it goes on, or NULL */
};

/*
 * Writes the next epoch. The VM runs again when this returns, also after a failure, if it ran
 * before. *report is a new reference: epoch, digest, cut_at (CLOCK_REALTIME in ns when the last
 * vCPU had stopped), pause_ns, rounds, throttle (percent of its time that the slowest vCPU lost
 * meanwhile) and what writing took.
 */
int operation_checkpoint(const struct checkpoint_request *request, json_t **report,
			 struct error *err);

struct restore_request {
	const char *control;
	const char *dir;
	uint64_t epoch;	    /* 0: the newest */
	const char *digest; /* that it must have (MANIFEST_DIGEST), or NULL */
	bool lazy;	    /* the VM runs before its memory is there */
	bool again;	    /* goes on where a mover was that died */
	bool force;	    /* disks are put back also when they were written since */
	bool elapsed;	    /* the guest's clock shows that time went by */
	bool leave_paused;  /* it is resumed else */
	const struct progress *progress;
};

/*
 * Restores an epoch into a VMM that was started with --incoming. After a failure that VM can only
 * be stopped; when a lazy restore fails before all memory is there, the VMM ends. When its process
 * dies the VMM waits a minute for another one with `again`.
 */
int operation_restore(const struct restore_request *request, json_t **report, struct error *err);

#endif
