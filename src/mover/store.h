/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_STORE_H
#define WISP_MOVER_STORE_H

/*
 * A folder of epochs that appear, change and go as a whole (docs/formats/checkpoint.md). One
 * process at a time writes to it; reading needs no lock.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct store {
	char *path;
	int dir;
	int lock; /* -1 when opened for reading */
};

/*
 * Opens the folder. For writing it is made when it does not exist (mode 0700), locked (-EBUSY
 * when another process writes there) and swept of what dead writers left.
 */
int store_open(const char *path, bool write, struct store *ret, struct error *err);
void store_close(struct store *store);

/* The numbers of all epochs, ascending; the caller frees *ret. */
int store_epochs(const struct store *store, uint64_t **ret, size_t *n, struct error *err);

/* Opens the folder of an epoch; an fd the caller closes, -ENOENT with what there is, or -errno. */
int store_epoch(const struct store *store, uint64_t epoch, struct error *err);

/* For writers. Makes the temporary folder of an epoch; an fd the caller closes, or -errno. */
int store_begin(const struct store *store, uint64_t epoch, struct error *err);

/*
 * The temporary folder, which was synced, becomes the epoch; it is durable when this returns 0.
 * With replace the epoch exists, and what it was goes.
 */
int store_commit(const struct store *store, uint64_t epoch, bool replace, struct error *err);

/* Removes the temporary folder of an epoch. Keeps errno. */
void store_abort(const struct store *store, uint64_t epoch);

/* Removes an epoch: gone at once, its files after that. */
int store_remove(const struct store *store, uint64_t epoch, struct error *err);

#endif
