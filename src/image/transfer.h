/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_TRANSFER_H
#define WISP_IMAGE_TRANSFER_H

/*
 * Images that leave and come as streams (docs/formats/image-stream.md), over blocking descriptors
 * of any kind, which stay the caller's; for sockets both may be one. One thread; several transfers
 * may run in several processes or threads, also of one image.
 */

#include <stdbool.h>
#include <stdint.h>

#include "image/plan.h"
#include "lib/digest.h"

struct error;
struct image;
struct progress;

/* Writes an open image. Every byte is checked: -EBADMSG; -EINTR; or -errno. */
int image_export(const struct image *image, int out, struct progress *progress, struct error *err);

/* How it shall be here. */
struct image_wish {
	const char *name; /* NULL: as it was called; fetched: with a part of its digest if that name
			     is taken */
	const char *into; /* folder it comes to, absolute; NULL: the user's own */
	bool replace;	  /* another image of that name goes */
	struct progress *progress; /* may be NULL */
	/* What has come, now and then, and all there is, in bytes; or NULL. */
	void (*tell)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct image_arrived {
	char name[64];
	char digest[DIGEST_TEXT];
	bool was_there;		 /* nothing had to be done */
	uint64_t bytes, brought; /* of all chunks, and of those that came now */
};

/*
 * Reads an image, or the rest of one that began to come before. It is there when this returns 0;
 * otherwise nothing is to be seen of it, but the next try goes on. -EPROTO, -EBADMSG, -EPIPE: the
 * stream is none, was changed, or ends too soon; -ENODATA: chunks are missing; -EEXIST: the name is
 * taken; -EINTR, -ENOSPC and others.
 */
int image_import(int in, const struct image_wish *wish, struct image_arrived *ret,
		 struct error *err);

/*
 * Gives one image to who fetches, from any place or one that is arriving in the user's own folder;
 * of one that is not there it waits as long for its arrival to begin. 0 when the other side has
 * ended in peace.
 */
int image_serve(int in, int out, unsigned patience_ms, struct progress *progress,
		struct error *err);

/*
 * Fetches the image of a digest from who serves. As image_import(), and -EREMOTEIO whenever another
 * source may do better: the source does not have it, has died, or sends what it is not.
 */
int image_fetch(int in, int out, const char *digest, const struct image_wish *wish,
		struct image_arrived *ret, struct error *err);

#endif
