/* SPDX-License-Identifier: Apache-2.0 */
/* Folders that appear whole or not at all. */

#include "image/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

#define TMP_PREFIX ".tmp-"
#define OLD_PREFIX ".old-" /* stepped aside for a new one */
#define SCRATCH ".scratch"
#define REMOVE_TRIES 40
#define REMOVE_NAP_MS 50

/*
 * A root that an ordinary user makes has files of other users of a user namespace; only in
 * such a namespace can they be removed.
 */
static int remove_in_namespace(const char *path, struct error *err)
{
	const char *const argv[] = {
		"unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--", path, NULL};

	return process_run(&(struct process){.argv = argv, .die_with_parent = true}, NULL, NULL,
			   err);
}

/* 0, or why not; what somebody else removes meanwhile is removed. */
static int remove_entry(const FTSENT *entry)
{
	int flags = entry->fts_info == FTS_DP ? AT_REMOVEDIR : 0;

	if (entry->fts_info == FTS_D)
		return 0;
	if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
		return entry->fts_errno == ENOENT ? 0 : -entry->fts_errno;
	return unlinkat(AT_FDCWD, entry->fts_path, flags) < 0 && errno != ENOENT ? -errno : 0;
}

/* All that can be removed. */
static int remove_once(const char *path, struct error *err)
{
	char *const roots[] = {(char *)path, NULL};
	FTS *fts;
	FTSENT *entry;
	int rc = 0;

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		return 0;
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	if (!fts)
		return error_errno(err, -errno, "cannot remove %s", path);
	while ((entry = fts_read(fts))) {
		int r = remove_entry(entry);

		if (r && !rc)
			rc = error_errno(err, r, "cannot remove %s", entry->fts_path);
	}
	fts_close(fts);
	return rc;
}

/* Programs of a build that was interrupted may be at it still, adding or removing. */
static int remove_tree(const char *path, struct error *err)
{
	int rc = remove_once(path, err);

	for (unsigned i = 0; rc == -ENOTEMPTY && i < REMOVE_TRIES; i++) {
		poll(NULL, 0, REMOVE_NAP_MS);
		rc = remove_once(path, err);
	}
	if ((rc == -EACCES || rc == -EPERM) && geteuid() != 0)
		rc = remove_in_namespace(path, err);
	return rc;
}

int tree_scratch(const char *tmp, char **ret, struct error *err)
{
	const char *base = getenv("TMPDIR");
	CLEANUP_FREE char *path = NULL, *link = io_format("%s/" SCRATCH, tmp);

	if (!base || base[0] != '/')
		base = "/tmp";
	path = io_format("%s/wisp-image-XXXXXX", base);
	if (!path || !link)
		return error_set(err, -ENOMEM, "out of memory");
	if (!mkdtemp(path))
		return error_errno(err, -errno, "cannot make %s", path);
	if (symlink(path, link) < 0) {
		int rc = error_errno(err, -errno, "cannot make %s", link);

		rmdir(path);
		return rc;
	}
	*ret = take_ptr(path);
	return 0;
}

int tree_scratch_done(const char *tmp, struct error *err)
{
	CLEANUP_FREE char *link = io_format("%s/" SCRATCH, tmp);
	char target[PATH_MAX];
	ssize_t n = link ? readlink(link, target, sizeof(target) - 1) : -1;
	int rc;

	if (n <= 0)
		return 0;
	target[n] = '\0';
	rc = remove_tree(target, err);
	if (rc == 0 && unlink(link) < 0)
		rc = error_errno(err, -errno, "cannot remove %s", link);
	return rc;
}

int tree_remove(const char *path, struct error *err)
{
	int rc = tree_scratch_done(path, err);

	return rc < 0 ? rc : remove_tree(path, err);
}

static bool has_prefix(const char *name, const char *prefix)
{
	return !strncmp(name, prefix, strlen(prefix));
}

/* What a killed process left: a half of a new folder, or an old one that stepped aside. */
static int clear_left(const char *store, const char *entry, struct error *err)
{
	CLEANUP_FREE char *left = io_format("%s/%s", store, entry);
	CLEANUP_FREE char *path = NULL;

	if (has_prefix(entry, OLD_PREFIX))
		path = io_format("%s/%s", store, entry + strlen(OLD_PREFIX));
	else if (!has_prefix(entry, TMP_PREFIX))
		return 0;
	if (!left || (has_prefix(entry, OLD_PREFIX) && !path))
		return error_set(err, -ENOMEM, "out of memory");
	if (!path || !access(path, F_OK))
		return tree_remove(left, err);
	/* The new one did not come: the old one keeps its place. */
	if (rename(left, path) < 0)
		return error_errno(err, -errno, "cannot rename %s to %s", left, path);
	return 0;
}

int tree_lock(const char *store, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/.lock", store);
	CLEANUP_CLOSE int fd = -1;
	CLEANUP_DIR DIR *dir = NULL;
	struct dirent *entry;

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_errno(err, -errno, "cannot lock %s", path);
	dir = opendir(store);
	if (!dir)
		return error_errno(err, -errno, "cannot read %s", store);
	while ((entry = readdir(dir))) {
		int rc = clear_left(store, entry->d_name, err);

		if (rc < 0)
			return rc;
	}
	return take_fd(&fd);
}

int tree_begin(const char *store, const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" TMP_PREFIX "%s", store, name);

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	if (mkdir(path, 0755) < 0)
		return error_errno(err, -errno, "cannot make %s", path);
	*ret = take_ptr(path);
	return 0;
}

/* Makes the files of a folder reach the disk before its new name does. */
static void sync_store(const char *store)
{
	int fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		syncfs(fd);
		close(fd);
	}
}

/* Where names cannot change places (NFS, Lustre) the old one steps aside for a moment. */
static int step_aside(const char *store, const char *name, const char *tmp, const char *path,
		      struct error *err)
{
	CLEANUP_FREE char *old = io_format("%s/" OLD_PREFIX "%s", store, name);

	if (!old)
		return error_set(err, -ENOMEM, "out of memory");
	if (rename(path, old) < 0)
		return error_errno(err, -errno, "cannot rename %s to %s", path, old);
	if (rename(tmp, path) < 0) {
		int r = error_errno(err, -errno, "cannot rename %s to %s", tmp, path);

		rename(old, path);
		return r;
	}
	return tree_remove(old, err);
}

int tree_commit(const char *store, const char *name, const char *tmp, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", store, name);

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	sync_store(store);
	if (!rename(tmp, path))
		return 0;
	if (errno != EEXIST && errno != ENOTEMPTY)
		return error_errno(err, -errno, "cannot rename %s to %s", tmp, path);
	/* At no time is there no folder of that name: the two change places. */
	if (!renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE))
		return tree_remove(tmp, err);
	if (errno != EINVAL && errno != ENOSYS)
		return error_errno(err, -errno, "cannot replace %s", path);
	return step_aside(store, name, tmp, path, err);
}

int tree_discard(const char *store, const char *name, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", store, name);
	CLEANUP_FREE char *tmp = io_format("%s/" TMP_PREFIX "%s", store, name);

	if (!path || !tmp)
		return error_set(err, -ENOMEM, "out of memory");
	if (rename(path, tmp) < 0)
		return error_errno(err, -errno, "cannot remove %s", path);
	return tree_remove(tmp, err);
}
