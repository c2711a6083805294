/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_ARRIVAL_H
#define WISP_IMAGE_ARRIVAL_H

/*
 * An image that comes in chunks, in any order, from anybody: STORE/.part-DIGEST until it is whole
 * (docs/formats/image-stream.md). What came stays when it ends before, and the next one goes on.
 * One thread; one at a time of each image and store, over all processes.
 */

#include "image/chunks.h"
#include "lib/digest.h"

struct error;
struct progress;

#define ARRIVAL_PREFIX ".part-"
#define ARRIVAL_HAVE "have"
#define ARRIVAL_LOCK "lock"
#define ARRIVAL_TOKEN 16 /* bytes in the lock file: who brings it */

struct arrival {
	char digest[DIGEST_TEXT];
	uint8_t token[ARRIVAL_TOKEN];
	char *store, *folder;
	struct progress *progress; /* may be NULL */
	bool fresh, dropped;	   /* nothing had come before; goes in any case */
	bool committed;		   /* it has its name */
	char *manifest, *signature;
	size_t manifest_size, signature_size;
	int lock, have, parts[CHUNK_PARTS];
	struct chunks chunks;
	uint8_t *bits; /* the chunks that are there; NULL before arrival_fill() */
	uint32_t missing;
};

/*
 * Begins, or goes on with, an image in a store; waits for another process that brings it, after
 * which it may be there under its name: the caller looks. Removes old rests of others. 0, -EINTR or
 * -errno; end with arrival_end().
 */
int arrival_begin(const char *store, const char *digest, struct progress *progress,
		  struct arrival *ret, struct error *err);

/* Takes the manifest, which has to have the digest, and the signature (size 0: none). -EBADMSG. */
int arrival_take(struct arrival *a, const void *manifest, size_t size, const void *signature,
		 size_t signature_size, struct error *err);

/*
 * Makes its files behind that, finds out which chunks are there already, and takes parts of images
 * that are here. -ENOSPC and others.
 */
int arrival_fill(struct arrival *a, struct error *err);

/* Takes chunk i, whatever it is said to be. -EBADMSG: it is not it. */
int arrival_put(struct arrival *a, uint64_t i, const void *data, size_t size, struct error *err);

/*
 * Gives the whole image its name in the store. replace: an image that has it goes. -ENODATA: chunks
 * are missing; -EEXIST.
 */
int arrival_commit(struct arrival *a, const char *name, bool replace, struct error *err);

/* Nothing of it is to be kept. */
void arrival_drop(struct arrival *a);

/* Lets go of it. Of what was not committed chunks stay; a folder without any goes. */
void arrival_end(struct arrival *a);

#endif
