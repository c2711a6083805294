/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_OCI_H
#define WISP_IMAGE_OCI_H

/*
 * Container images in the cache, by skopeo (CACHE/oci/DIGEST), from wherever skopeo can read. Any
 * thread, any number of processes at once.
 */

#include <stdbool.h>

#include "lib/digest.h"

struct error;

struct oci {
	char *layout;		  /* an OCI layout with the image under the tag "image" */
	char digest[DIGEST_TEXT]; /* of its manifest, as its place gives it */
	char *note;		  /* NULL or one line for the user: why it is the cached one */
};

/*
 * Gets the image of a reference: of skopeo's transports ("oci:/path:tag", "docker-archive:/file",
 * "dir:/path", "docker://..."), else one of a registry. What its manifest is now is asked there;
 * when that fails the one is taken that was there last. refresh: copies it again. 0 or -errno.
 */
int oci_get(const char *reference, bool refresh, struct oci *ret, struct error *err);
void oci_done(struct oci *oci);

#endif
