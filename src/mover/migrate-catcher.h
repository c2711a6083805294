/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_CATCHER_H
#define WISP_MOVER_MIGRATE_CATCHER_H

/*
 * What the files of the catcher share (migrate-postcopy.h): its sessions
 * (migrate-postcopy-target.c), faults (migrate-catcher-ask.c), and pages (migrate-catcher-take.c).
 * A page is claimed (its bit of `wanted` cleared) by the thread that gives it.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "lib/error.h"
#include "mover/blocktime.h"
#include "mover/faults.h"
#include "mover/huge.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-set.h"

struct catcher {
	struct catcher_options o;
	int memfd;
	struct faults faults;
	struct blocktime blocktime;
	struct huge *huge;	  /* when the VM has huge pages */
	uint64_t *there;	  /* as seen between sessions; the pages that are missing then */
	_Atomic uint64_t *wanted; /* of what is due: nobody has claimed it */
	_Atomic uint64_t *due, *zero; /* missing at the begin of the session; known to be zero */
	_Atomic uint64_t *asked;      /* in this session */
	_Atomic uint64_t left;
	/* Of a session. */
	unsigned streams, started;
	struct channel channel[MIGRATE_STREAMS];
	pthread_t thread[MIGRATE_STREAMS + 2];
	int stop_fd;
	_Atomic bool failed, fatal, stopping, lost;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct error err; /* why it failed */
	bool running;
};

/* The session has failed, with rc, for this reason. Any thread. */
void catcher_fail(struct catcher *c, int rc, const struct error *why);

/* The VM waits for all of a huge page that is there now: accounts for it. Any thread. */
static inline void catcher_end_huge(struct catcher *c, uint64_t chunk)
{
	blocktime_end(&c->blocktime, huge_first(c->huge, chunk), ~0ull);
}

/* Threads of a session: who serves faults (the catcher), and who takes pages of a connection. */
void *catcher_ask_main(void *catcher);

struct catcher_lane { /* of the heap; the thread frees it */
	struct catcher *c;
	unsigned stream;
};

void *catcher_take_main(void *lane);

#endif
