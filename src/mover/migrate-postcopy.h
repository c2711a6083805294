/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_POSTCOPY_H
#define WISP_MOVER_MIGRATE_POSTCOPY_H

/*
 * Post-copy: the rest of the pages follows a VM that was handed over without them. On either side
 * an object that lives as long as the mover, and in it a session, which ends with its connections;
 * a new one goes on with what is missing then. Connection 0 of a session carries what the VM waits
 * for, the others what comes by itself.
 */

#include <jansson.h>

#include "mover/channel.h"
#include "mover/compress.h"
#include "mover/machine.h"

struct error;

/* -------- source -------- */

struct pusher;

/* memfd stays the caller's. streams: connections of each session, at least 2. */
int pusher_create(int memfd, uint64_t memory, enum compression compression, unsigned streams,
		  struct pusher **ret, struct error *err);
void pusher_destroy(struct pusher *p); /* ends the session; accepts NULL */

/*
 * A session: threads answer what is asked for, and push the pages of the set that are not in zero
 * (or NULL). Takes the channels over, as many as streams.
 */
int pusher_start(struct pusher *p, struct channel *channel, const uint64_t *missing,
		 const uint64_t *zero, struct error *err);
void pusher_stop(struct pusher *p);

/* True once a connection of the session has failed; for channel.cancel. */
const _Atomic bool *pusher_failed(const struct pusher *p);
/* Pages sent in all sessions, and how many of them were asked for. */
void pusher_count(const struct pusher *p, uint64_t *pages, uint64_t *asked);

/* -------- target -------- */

struct catcher;

struct catcher_options {
	struct machine *vmm;  /* the caller's */
	uint64_t memory;      /* bytes */
	uint64_t page_size;   /* of the VM's memory; of catcher_create() */
	unsigned patience_ms; /* how long the VM waits for a mover when this one is gone */
	unsigned timeout_ms;  /* without a page that was to come: the session has failed */
};

/*
 * Makes the missing pages of a VM that has not been loaded really missing. What is neither missing
 * nor there is zero. Of a huge page all pages are missing, or none: else -EBADMSG.
 */
int catcher_create(const struct catcher_options *o, const uint64_t *missing, const uint64_t *zero,
		   struct catcher **ret, struct error *err);
/* Of a VM whose mover is gone. -ENOENT: it waits for nobody. */
int catcher_create_again(const struct catcher_options *o, struct catcher **ret, struct error *err);
void catcher_destroy(struct catcher *c); /* the VM waits for another; accepts NULL */

/* The pages that are missing now, without a session. One word for each chunk; the catcher's. */
const uint64_t *catcher_missing(const struct catcher *c);
/* The instance of a VMM that was taken over, and its memory in bytes. */
const char *catcher_name(const struct catcher *c);
uint64_t catcher_memory(const struct catcher *c);

/*
 * A session: serves faults, takes pages. fatal: the VM ends when the session fails (it waits in a
 * call to the VMM). Takes the channels over.
 */
int catcher_start(struct catcher *c, struct channel *channel, unsigned streams, bool fatal,
		  struct error *err);
void catcher_not_fatal(struct catcher *c);
/* Ends it and sees what is missing. */
int catcher_stop(struct catcher *c, struct error *err);
const _Atomic bool *catcher_failed(const struct catcher *c);
/* Why the session failed. */
const char *catcher_reason(const struct catcher *c);
bool catcher_running(const struct catcher *c); /* a session */
bool catcher_lost(const struct catcher *c);    /* the VMM is gone */

/* Waits, at most 20 ms, for the session to go on. How many pages are missing. */
uint64_t catcher_wait(struct catcher *c);

/* All pages are there: lets go of the VM. *report: what the guest waited for, a new object. */
int catcher_finish(struct catcher *c, json_t **report, struct error *err);

#endif
