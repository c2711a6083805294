/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_WRITE_H
#define WISP_MOVER_WRITE_H

/*
 * Writes an epoch: pages of a memfd, the saved state, what describes the VM. Nothing of it can be
 * seen before writer_commit() succeeded; whatever fails leaves the earlier epochs alone. A
 * writer belongs to one thread and starts its own.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"
#include "mover/compress.h"
#include "mover/store.h"
#include "mover/work.h"

struct writer;

enum direct {
	DIRECT_AUTO, /* O_DIRECT for large epochs where the file system takes it */
	DIRECT_ON,
	DIRECT_OFF,
};

struct writer_options {
	uint64_t memory;  /* bytes of the memfd */
	uint64_t parent;  /* epoch that this is incremental on; 0: full */
	unsigned threads; /* 0: by CPUs and size */
	enum compression compression;
	enum direct direct;
	const struct progress *progress; /* or NULL; must live as long as the writer */
};

/*
 * Begins the next epoch in a store that is open for writing and outlives the writer. The parent
 * must exist and have memory of the same size.
 */
int writer_create(const struct store *store, const struct writer_options *options,
		  struct writer **ret, struct error *err);

/* Throws away what was not committed. */
void writer_destroy(struct writer *w);

/*
 * Writes pages of the memfd: those whose bit is set in the bitmap (one bit per 4096 bytes of
 * memory, in words of 64), or all with NULL. May be called again: what is written later wins. The
 * guest may write to them meanwhile, if it is paused or its writes are logged for a later call.
 * Zero pages take no room, holes of the memfd stay holes. Every call but the first of a full
 * epoch needs a bitmap. -ECANCELED when progress->cancel was set.
 */
int writer_pages(struct writer *w, int memfd, const uint64_t *bitmap, struct error *err);

/* The folder of the epoch, for files of others. The writer's. */
int writer_dir(const struct writer *w);

/* Whether writer_pages() leaves the CPUs to who wants them: the vCPUs of a guest that runs. */
void writer_gentle(struct writer *w, bool gentle);

/*
 * Where writer_pages() gets pages from instead of a memfd: fn fills out with the wanted pages of
 * a chunk, one behind the other. Called by several threads. For merges.
 */
typedef int (*writer_source)(void *arg, unsigned thread, uint64_t chunk, uint64_t wanted,
			     uint8_t *out, struct error *err);
int writer_pages_from(struct writer *w, writer_source fn, void *arg, const uint64_t *bitmap,
		      struct error *err);

/* What is known of the VM beside its memory. Nothing is taken over. */
struct writer_vm {
	const void *state; /* what the VMM saved */
	uint64_t state_size;
	const json_t *config, *cpu; /* opaque; NULL: null */
	const char *image;	    /* digest of the guest's image, or NULL */
	json_t *files;		    /* what else is in the folder, for the manifest, or NULL */
};

/* The number that the epoch will have. */
uint64_t writer_epoch(const struct writer *w);

/*
 * Makes the epoch durable, but not visible. Returns 0, the digest of its manifest and a new
 * reference to the report in *report (when not NULL). The writer can only be published or destroyed
 * then.
 */
int writer_finish(struct writer *w, const struct writer_vm *vm, char digest[DIGEST_TEXT],
		  json_t **report, struct error *err);

/* Makes visible what was finished. */
int writer_publish(struct writer *w, struct error *err);

/* Both. The number of the epoch in *epoch (when not NULL). */
int writer_commit(struct writer *w, const struct writer_vm *vm, uint64_t *epoch, json_t **report,
		  struct error *err);

/*
 * For merges: a writer of a full epoch that will take the place of an epoch that exists, and its
 * commit, which keeps what old (the manifest there is) says of the VM and its identity.
 */
int writer_replace(const struct store *store, const struct writer_options *options, uint64_t epoch,
		   struct writer **ret, struct error *err);
int writer_commit_merged(struct writer *w, const json_t *old, json_t *files, uint64_t time,
			 const void *state, uint64_t state_size, struct error *err);

#endif
