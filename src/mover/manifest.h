/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MANIFEST_H
#define WISP_MOVER_MANIFEST_H

/*
 * manifest.json of an epoch (docs/formats/checkpoint.md): JSON that carries its own digest and
 * is refused unless it is exactly the bytes that were written.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"

struct error;

#define MANIFEST_NAME "manifest.json"
#define MANIFEST_FORMAT 1
#define MANIFEST_DIGEST "sha256:" /* and 64 digits: what names an epoch by its content */
#define MANIFEST_DISK "disk."	  /* and the id of a device: a file with the content of a disk */
#define MANIFEST_DISK_MAX 40

struct manifest {
	json_t *json;		  /* all of it, owned */
	char digest[DIGEST_TEXT]; /* that it was first written with: merging does not change it */
	uint64_t epoch;
	char identity[DIGEST_TEXT];
	uint64_t parent_epoch;	  /* 0: full */
	char parent[DIGEST_TEXT]; /* "" when full */
	uint64_t memory, state;	  /* bytes */
	uint64_t index_size;
	char index_sha256[DIGEST_TEXT];
	uint32_t files;	     /* page files */
	uint64_t *file_size; /* of each */
};

/* Parses and checks text. name is for errors. The caller frees *ret with manifest_done(). */
int manifest_parse(const char *text, size_t size, const char *name, struct manifest *ret,
		   struct error *err);

/* Reads the manifest in the folder dir and parses it. -ENOENT when there is none. */
int manifest_read(int dir, const char *name, struct manifest *ret, struct error *err);

/*
 * Adds the digest to json and writes it into the folder: temporary file, fsync, rename. The
 * caller syncs the folder. 0 and the digest, or -errno.
 */
int manifest_write(int dir, json_t *json, char digest[DIGEST_TEXT], struct error *err);

/* "sha256:..." as a new reference. */
json_t *manifest_digest_json(const char digest[DIGEST_TEXT]);

/* That it is the manifest of the digest "sha256:..."; name is for errors. 0, -ESTALE, -EINVAL. */
int manifest_check_digest(const struct manifest *m, const char *name, const char *wanted,
			  struct error *err);

void manifest_done(struct manifest *manifest);

#endif
