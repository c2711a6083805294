/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_TREE_H
#define WISP_IMAGE_TREE_H

/*
 * Folders that appear whole or not at all: made beside their place under a temporary name
 * while the store (the folder above) is locked, then renamed. What a killed process left is
 * removed by the next one that locks the store.
 */

struct error;

/*
 * Locks the store (waits for another process to finish) and removes what others left half
 * done in it. Returns an fd that holds the lock until it is closed, or -errno.
 */
int tree_lock(const char *store, struct error *err);

/* Makes STORE/.tmp-NAME for a holder of the lock; 0 and its path, which the caller frees. */
int tree_begin(const char *store, const char *name, char **ret, struct error *err);

/*
 * Makes a folder in $TMPDIR (or /tmp) for large intermediate files, linked from the temporary
 * folder so that it goes away with it. 0 and its path, which the caller frees.
 */
int tree_scratch(const char *tmp, char **ret, struct error *err);
/* Removes it, before a commit. */
int tree_scratch_done(const char *tmp, struct error *err);

/* Renames the temporary folder to STORE/NAME; what is there is replaced and removed. */
int tree_commit(const char *store, const char *name, const char *tmp, struct error *err);

/* Removes STORE/NAME: gone at once, its files after that. For a holder of the lock. */
int tree_discard(const char *store, const char *name, struct error *err);

/* rm -rf, with its scratch folder. 0 also when there is nothing. */
int tree_remove(const char *path, struct error *err);

#endif
