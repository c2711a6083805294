/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_IMAGE_H
#define WISP_IMAGE_IMAGE_H

/*
 * Guest images: folders IMAGES/NAME with a kernel, an initrd, a root file system and a
 * manifest (docs/formats/image.md). They appear whole and never change. Any thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/digest.h"

struct error;
struct meet;

/* An image that is there. Strings and the manifest are the structure's. */
struct image {
	char *name, *folder;
	char *vmlinux; /* paths of the parts: uncompressed kernel, */
	char *vmlinuz; /* bzImage, */
	char *initrd;
	char *root; /* squashfs */
	json_t *manifest;
};

/* Opens an image and checks that its parts have the sizes they should; -ENOENT: no image. */
int image_open(const char *name, struct image *ret, struct error *err);
void image_close(struct image *image);

/* Opens an image and checks every byte; -EBADMSG names the part that is damaged. */
int image_verify(const char *name, struct error *err);

/* All images' names, sorted: new list of new strings that ends with NULL. */
int image_names(char ***ret, struct error *err);

int image_remove(const char *name, struct error *err);

/*
 * What a manifest says of the content alone: the same digest, the same image, whoever built it and
 * whatever it is called. 0 or -errno.
 */
int image_digest(const json_t *manifest, char ret[DIGEST_TEXT], struct error *err);

/* Checks every byte of an image and signs it by the Ed25519 key in a PEM file. */
int image_sign(const char *name, const char *key_file, struct error *err);

/*
 * Whether the manifest of an open image is signed by a key of the folder (*.pub, PEM): 0 and,
 * unless ret_who is NULL, the key's name (new). -ENODATA: not signed; -EBADMSG: no signature;
 * -EACCES: a signature of something else, or of a key that is not there.
 */
int image_check_signature(const struct image *image, const char *keys, char **ret_who,
			  struct error *err);

/* Bytes of all parts. */
uint64_t image_size(const struct image *image);

struct image_build {
	const struct meet *environment; /* without conflicts */
	const char *file;		/* the first of its documents */
	const char *name;		/* NULL: the environment's, or its file's */
	const char *keys;		/* folder of the keys that images are signed by */
	bool refresh;			/* make the root again, with the packages of today */
	bool quiet;			/* no progress */
};

/* Builds an image, or finds that it is up to date. Its name in *ret_name (new). */
int image_build(const struct image_build *build, char **ret_name, struct error *err);

#endif
