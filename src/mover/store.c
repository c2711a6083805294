/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of epochs. */

#include "mover/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define TMP_PREFIX ".tmp-"
#define OLD_PREFIX ".old-" /* an epoch that is being replaced where folders cannot be exchanged */
#define NAME_SIZE 32

static const char *epoch_name(uint64_t epoch, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, "%" PRIu64, epoch);
	return name;
}

static const char *temporary_name(uint64_t epoch, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, TMP_PREFIX "%" PRIu64, epoch);
	return name;
}

static const char *old_name(uint64_t epoch, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, OLD_PREFIX "%" PRIu64, epoch);
	return name;
}

/* The number that a name spells in its one way, or 0. */
static uint64_t epoch_of(const char *name)
{
	char again[NAME_SIZE];
	uint64_t epoch = strtoull(name, NULL, 10);

	return strcmp(epoch_name(epoch, again), name) ? 0 : epoch;
}

/* A DIR of its own position. */
static DIR *list(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

/* Removes a folder of files. */
static int remove_folder(int dir, const char *name)
{
	CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : list(fd);
	struct dirent *entry;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(d))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(fd, entry->d_name, 0) < 0 && errno != ENOENT)
			return -errno;
	}
	return unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* An epoch that a dead writer was replacing: back in place, or gone when the new one is there. */
static int sweep_old(const struct store *store, const char *name)
{
	const char *epoch = name + strlen(OLD_PREFIX);

	if (faccessat(store->dir, epoch, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		return renameat(store->dir, name, store->dir, epoch) < 0 ? -errno : 0;
	return remove_folder(store->dir, name);
}

static int sweep(const struct store *store, struct error *err)
{
	CLEANUP_DIR DIR *d = list(store->dir);
	struct dirent *entry;

	if (!d)
		return error_errno(err, -errno, "cannot read %s", store->path);
	while ((entry = readdir(d))) {
		int rc = 0;

		if (!strncmp(entry->d_name, TMP_PREFIX, strlen(TMP_PREFIX)))
			rc = remove_folder(store->dir, entry->d_name);
		else if (!strncmp(entry->d_name, OLD_PREFIX, strlen(OLD_PREFIX)))
			rc = sweep_old(store, entry->d_name);
		if (rc < 0)
			return error_errno(err, rc, "cannot remove %s/%s, left by a dead writer",
					   store->path, entry->d_name);
	}
	return 0;
}

static int lock(struct store *store, struct error *err)
{
	int rc;

	store->lock = openat(store->dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (store->lock < 0)
		return error_errno(err, -errno, "cannot write to %s", store->path);
	rc = io_lock(store->lock, store->path, err);
	if (rc == -EBUSY)
		error_set(err, rc,
			  "another process writes to %s: wait for it, or use another folder",
			  store->path);
	return rc;
}

int store_open(const char *path, bool write, struct store *ret, struct error *err)
{
	struct store store = {.path = strdup(path), .dir = -1, .lock = -1};
	int rc = store.path ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0 && write)
		rc = io_make_dirs(path, 0700, err);
	if (rc == 0) {
		store.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (store.dir < 0)
			rc = error_errno(err, -errno, "cannot open checkpoint folder %s", path);
	}
	if (rc == 0 && write)
		rc = lock(&store, err);
	if (rc == 0 && write)
		rc = sweep(&store, err);
	if (rc < 0)
		store_close(&store);
	else
		*ret = store;
	return rc;
}

void store_close(struct store *store)
{
	free(store->path);
	cleanup_close_fd(&store->dir);
	cleanup_close_fd(&store->lock);
	*store = (struct store){.dir = -1, .lock = -1};
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int store_epochs(const struct store *store, uint64_t **ret, size_t *n, struct error *err)
{
	CLEANUP_DIR DIR *d = list(store->dir);
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t used = 0, room = 0;
	struct dirent *entry;

	if (!d)
		return error_errno(err, -errno, "cannot read %s", store->path);
	while ((entry = readdir(d))) {
		if (!epoch_of(entry->d_name))
			continue;
		if (used == room) {
			uint64_t *bigger;

			room = room ? 2 * room : 16;
			bigger = realloc(epochs, room * sizeof(*epochs));
			if (!bigger)
				return error_set(err, -ENOMEM, "out of memory");
			epochs = bigger;
		}
		epochs[used++] = epoch_of(entry->d_name);
	}
	if (used)
		qsort(epochs, used, sizeof(*epochs), ascending);
	*ret = take_ptr(epochs);
	*n = used;
	return 0;
}

int store_epoch(const struct store *store, uint64_t epoch, struct error *err)
{
	char name[NAME_SIZE], old[NAME_SIZE];
	int fd = openat(store->dir, epoch_name(epoch, name),
			O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT)
		fd = openat(store->dir, old_name(epoch, old),
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return error_set(err, -ENOENT,
				 "no epoch %s in %s (\"wisp checkpoint list %s\" shows those "
				 "there are)",
				 name, store->path, store->path);
	return error_errno(err, -errno, "cannot open %s/%s", store->path, name);
}

int store_begin(const struct store *store, uint64_t epoch, struct error *err)
{
	char name[NAME_SIZE];
	int fd, rc = remove_folder(store->dir, temporary_name(epoch, name));

	if (rc == 0 && mkdirat(store->dir, name, 0700) < 0)
		rc = -errno;
	if (rc < 0)
		return error_errno(err, rc, "cannot make %s/%s", store->path, name);
	fd = openat(store->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s/%s", store->path, name);
	return fd;
}

/* Exchanges both; where the file system cannot (NFS), the old one steps aside for a moment. */
static int replace_epoch(const struct store *store, uint64_t epoch)
{
	char name[NAME_SIZE], temporary[NAME_SIZE], old[NAME_SIZE];

	epoch_name(epoch, name);
	temporary_name(epoch, temporary);
	old_name(epoch, old);
	if (!renameat2(store->dir, temporary, store->dir, name, RENAME_EXCHANGE))
		return remove_folder(store->dir, temporary);
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (renameat(store->dir, name, store->dir, old) < 0 ||
	    renameat(store->dir, temporary, store->dir, name) < 0 || fsync(store->dir) < 0)
		return -errno;
	return remove_folder(store->dir, old);
}

int store_commit(const struct store *store, uint64_t epoch, bool replace, struct error *err)
{
	char name[NAME_SIZE], temporary[NAME_SIZE];
	int rc = 0;

	epoch_name(epoch, name);
	temporary_name(epoch, temporary);
	if (replace)
		rc = replace_epoch(store, epoch);
	else if (renameat(store->dir, temporary, store->dir, name) < 0)
		rc = -errno;
	if (rc == 0 && fsync(store->dir) < 0) {
		rc = -errno;
		/* What may not last is not shown. */
		if (!replace && renameat(store->dir, name, store->dir, temporary) < 0)
			rc = -errno;
	}
	if (rc < 0)
		return error_errno(err, rc, "cannot make %s/%s of %s", store->path, name,
				   temporary);
	return 0;
}

void store_abort(const struct store *store, uint64_t epoch)
{
	char name[NAME_SIZE];
	int saved = errno;

	remove_folder(store->dir, temporary_name(epoch, name));
	errno = saved;
}

int store_remove(const struct store *store, uint64_t epoch, struct error *err)
{
	char name[NAME_SIZE], temporary[NAME_SIZE];
	int rc = remove_folder(store->dir, temporary_name(epoch, temporary));

	if (rc == 0 && renameat(store->dir, epoch_name(epoch, name), store->dir, temporary) < 0)
		rc = -errno;
	if (rc == 0 && fsync(store->dir) < 0)
		rc = -errno;
	if (rc == 0)
		rc = remove_folder(store->dir, temporary);
	return rc < 0 ? error_errno(err, rc, "cannot remove %s/%s", store->path, name) : 0;
}
