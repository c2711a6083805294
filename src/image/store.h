/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_STORE_H
#define WISP_IMAGE_STORE_H

/* Images by their folders: what the store, the builder and transfers share. Any thread. */

#include "image/image.h"

/* Opens the image in a folder under a name, wherever it is. As image_open(). */
int image_open_folder(const char *name, const char *folder, enum image_place place,
		      struct image *ret, struct error *err);

/* One of the user's own. */
int image_open_own(const char *name, struct image *ret, struct error *err);

/*
 * That nobody but root and the user can change what is in the image's folder, nor put another one
 * in its place: the folder and the one above it, and elsewhere than in the user's own folder
 * everything up to the root. -EPERM says what is wrong and what helps.
 */
int image_check_safe(const char *name, const char *folder, enum image_place place,
		     struct error *err);

/* Whether a text is a signature, by whatever key, of the bytes of a manifest. */
bool image_signature_holds(const char *text, size_t n, const void *manifest, size_t size);

#endif
