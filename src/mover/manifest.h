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
#define MANIFEST_DISK "disk." /* and the id of a device: a file with the content of a disk */
#define MANIFEST_DISK_MAX 40

struct manifest {
	json_t *json; /* all of it, owned */
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
 * caller syncs the folder. 0 or -errno.
 */
int manifest_write(int dir, json_t *json, struct error *err);

void manifest_done(struct manifest *manifest);

#endif
