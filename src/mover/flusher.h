/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_FLUSHER_H
#define WISP_MOVER_FLUSHER_H

/*
 * Writes out what the host has in memory of a VM's disks, beside the rounds of a migration: a slow
 * disk does not keep the other side waiting.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "mover/machine.h"

struct flusher {
	struct machine *vmm;
	pthread_t thread;
	bool runs;
	_Atomic bool stop;
	int rc; /* of the thread, and why */
	struct error err;
	uint64_t start, ns, last_ns; /* last_ns: that the one before took */
};

/*
 * Begins, unless it is under way, and waits for its end, so many ms at most. 1: it is done; 0: not
 * yet; -ECANCELED when cancel (may be NULL) says so; or why a disk cannot be written.
 */
int flusher_go(struct flusher *f, unsigned wait_ms, const _Atomic bool *cancel, struct error *err);

/* What came since takes no longer than so many ms, or not much less than before. */
bool flusher_is_short(const struct flusher *f, unsigned ms);

/* Waits for what is under way, which ends soon. */
void flusher_stop(struct flusher *f);

#endif
