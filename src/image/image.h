/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_IMAGE_H
#define WISP_IMAGE_IMAGE_H

/*
 * Guest images: folders NAME with a kernel, an initrd, a root file system and a manifest
 * (docs/formats/image.md), the user's own and those of shared stores. They appear whole and never
 * change. Any thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"

struct error;
struct meet;

/* Where an image is: in the user's folder, one of $WISP_STORE, or the site's. */
enum image_place { IMAGE_OWN, IMAGE_STORE, IMAGE_SITE };

/* "own", "store", "site". */
const char *image_place_name(enum image_place place);

/* An image that is there. Strings and the manifest are the structure's. */
struct image {
	char *name, *folder;
	enum image_place place;
	bool pinned;   /* it was asked for by its digest */
	char *vmlinux; /* paths of the parts: uncompressed kernel, */
	char *vmlinuz; /* bzImage, */
	char *initrd;
	char *root; /* squashfs */
	json_t *manifest;
};

/*
 * Opens the image that is meant by NAME, NAME@sha256:DIGEST or @sha256:DIGEST, and checks that its
 * parts have the sizes they should and that nobody but root and the user can change them. The
 * first place that has the name is meant; with a digest the first that has it.
 * -ENOENT: no image; -EBADMSG: it is damaged, or its digest is another; -EPERM: others can change
 * it.
 */
int image_open(const char *reference, struct image *ret, struct error *err);
void image_close(struct image *image);

/* Checks every byte of an open image; -EBADMSG names the part that is damaged. */
int image_verify(const struct image *image, struct error *err);

/*
 * The same, but cheap for who did so before: a mark in the user's cache says what the files were
 * then (size, times, inode).
 */
int image_verify_once(const struct image *image, struct error *err);

/* What an image has to be so that a VM may run it. */
struct image_demand {
	const json_t *environment; /* closed, of the job; NULL: none */
	bool is_signed;		   /* a signature is asked for, whatever environments say */
	const char *keys;	   /* folder of the keys that the site trusts */
};

/*
 * Opens an image for a VM that is to start. Where the demand, its environment or the image's own
 * asks for a signature (signed: yes) there has to be a trusted one; of such an image, and of one
 * that is named by its digest, every byte has been checked (image_verify_once()). As image_open(),
 * and -ENODATA: not signed; -EACCES: not by a key that is trusted.
 */
int image_admit(const char *reference, const struct image_demand *demand, struct image *ret,
		struct error *err);

/* An image of some place; hidden: its name means another one. */
struct image_entry {
	char *name, *folder;
	enum image_place place;
	bool hidden;
};

/* All images, the user's first, each place's sorted: n new entries. */
int image_list(struct image_entry **ret, size_t *n, struct error *err);
void image_list_done(struct image_entry *entries, size_t n);

/* Opens one of the list. */
int image_open_entry(const struct image_entry *entry, struct image *ret, struct error *err);

/* Removes one of the user's own. */
int image_remove(const char *name, struct error *err);

/*
 * What a manifest says of the content alone: the same digest, the same image, whoever built it and
 * whatever it is called. 0 or -errno.
 */
int image_digest(const json_t *manifest, char ret[DIGEST_TEXT], struct error *err);

/* Checks every byte of an image and signs it by the Ed25519 key in a PEM file. */
int image_sign(const char *reference, const char *key_file, struct error *err);

/*
 * Whether the manifest of an open image is signed by a key of the folder (*.pub, PEM): 0 and,
 * unless ret_who is NULL, the key's name (new). -ENODATA: not signed; -EBADMSG: no signature;
 * -EACCES: a signature of something else, or of a key that is not there.
 */
int image_check_signature(const struct image *image, const char *keys, char **ret_who,
			  struct error *err);

/*
 * What tells others who stands for an image, where its files are not: {"manifest", "signature"},
 * the texts of these files; a new reference. 0 and *ret NULL: it is not signed.
 */
int image_proof(const struct image *image, json_t **ret, struct error *err);

/*
 * Whether a proof (of anybody; NULL: there is none) is of the image with that digest, signed by a
 * key of the folder: 0 and its manifest, new. -ENODATA: not signed; -EBADMSG: it is no proof, or
 * another image's; -EACCES: not by a key that is trusted. name: of the image, for the reason.
 */
int image_check_proof(const json_t *proof, const char *name, const char *digest, const char *keys,
		      json_t **ret, struct error *err);

/*
 * Which image an environment (met without conflicts) means as it is, since it adds nothing to its
 * base: a reference, new; *ret NULL: none is, one has to be built.
 */
int image_as_it_is(const struct meet *environment, char **ret, struct error *err);

/*
 * Whether an image may run in an environment that an administrator has rules for
 * (docs/formats/image.md, "Rules of the site"). image: {"name", "digest"} and proof: as above, both
 * by who wants to run it, or NULL. What is found by image_open() is believed. keys: the folder of
 * those that are trusted. -EINVAL: image is none; -EACCES: it may not, or cannot be shown to.
 */
int image_follows(const struct meet *environment, const json_t *image, const json_t *proof,
		  const char *keys, struct error *err);

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
