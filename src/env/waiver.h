/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_WAIVER_H
#define WISP_ENV_WAIVER_H

/* Waivers: an administrator lets a request off one rule, and signs that (Ed25519). Any thread. */

#include <stdint.h>

#include "env/facts.h"

struct error;

/* All texts are the structure's. */
struct waiver {
	char *rule, *user;
	char *project, *application; /* NULL: any */
	char *because;
	int64_t until; /* seconds since 1970, UTC */
};

void waiver_done(struct waiver *waiver);

/* "2027-01-31T00:00:00Z" or "2027-01-31", UTC. -EINVAL with the reason. */
int waiver_time(const char *text, int64_t *ret, struct error *err);

/*
 * The waiver as a text, signed by the private key in a PEM file: a new string in *ret. -EINVAL:
 * a value has a line break in it, or the key is no Ed25519 key.
 */
int waiver_sign(const struct waiver *waiver, const char *key_file, char **ret, struct error *err);

/*
 * Reads a waiver and says whether it holds: well formed, signed by a key of the folder (*.pub,
 * PEM), for these facts, and not over at now. -EINVAL when malformed, -EACCES when it does not
 * hold. Free with waiver_done().
 */
int waiver_check(const char *text, const char *where, const char *keys, const json_t *facts,
		 int64_t now, struct waiver *ret, struct error *err);
/* The same of a file. */
int waiver_load(const char *path, const char *keys, const json_t *facts, int64_t now,
		struct waiver *ret, struct error *err);

#endif
