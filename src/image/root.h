/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_ROOT_H
#define WISP_IMAGE_ROOT_H

/*
 * The read-only root file system of an image: Debian packages by mmdebstrap, alone or upon the root
 * of another image, packed as squashfs.
 * Kept in the cache (CACHE/root/KEY), where KEY is the digest of all that goes into it; a new agent
 * or kernel does not make a new root.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/digest.h"

struct base;
struct error;
struct progress;
struct spec;

struct root {
	char *path; /* the squashfs in the cache */
	char sha256[DIGEST_TEXT];
	uint64_t size;
	json_t *packages; /* [{"name", "version", "architecture"}] */
};

/*
 * Gets the root of a specification upon its base; from the cache unless refresh. Shows its step on
 * progress. 0 or -errno; -EINTR when the user stopped it.
 */
int root_get(const struct spec *spec, const struct base *base, bool refresh,
	     struct progress *progress, struct root *ret, struct error *err);
void root_done(struct root *root);

/* The packages in the text of /var/lib/dpkg/status: a new reference or NULL. */
json_t *root_packages(const char *status);

#endif
