/* SPDX-License-Identifier: Apache-2.0 */
/* State directories that tell by a lock whether their owner lives. */

#include "net/state.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define LOCK_NAME "lock"
#define SWEEP_MS 200 /* a start waits so long for somebody who removes the directory */

/* Removes all that is in the directory except keep; symbolic links are not followed. */
static int empty_dir(int parent, const char *name, const char *keep)
{
	CLEANUP_CLOSE int fd =
		openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP_DIR DIR *dir = NULL;
	struct dirent *entry;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return -errno;
	parent = take_fd(&fd); /* now the stream's */
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		    (keep && !strcmp(entry->d_name, keep)))
			continue;
		if (!unlinkat(parent, entry->d_name, 0))
			continue;
		if (errno != EISDIR)
			return -errno;
		if (empty_dir(parent, entry->d_name, NULL) < 0 ||
		    unlinkat(parent, entry->d_name, AT_REMOVEDIR) < 0)
			return -errno;
	}
	return 0;
}

/* A lock of the open file: forked processes share it, and asking for it disturbs nobody. */
static const struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

/* 0 and the lock, -EBUSY, or -ESTALE when the file was removed meanwhile: try again. */
static int try_lock(const char *path, int flags, int *ret)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	struct stat ours, there;

	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &whole_file) < 0)
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	if (fstat(fd, &ours) < 0 || stat(path, &there) < 0 || ours.st_ino != there.st_ino ||
	    ours.st_dev != there.st_dev)
		return -ESTALE;
	*ret = take_fd(&fd);
	return 0;
}

int state_lock(const char *dir, int *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" LOCK_NAME, dir);
	CLEANUP_CLOSE int fd = -1;
	uint64_t end = io_now_ns() + SWEEP_MS * 1000000ULL;
	int r;

	if (!path)
		return -ENOMEM;
	for (;;) {
		r = io_make_dirs(dir, 0700, err);
		if (r && r != -ENOENT)
			return r;
		if (!r)
			r = try_lock(path, O_CREAT, &fd);
		if ((r != -EBUSY && r != -ESTALE && r != -ENOENT) || io_now_ns() >= end)
			break;
		if (r == -EBUSY)
			poll(NULL, 0, 5);
	}
	if (r == -EBUSY)
		return error_set(err, r, "%s is in use", dir);
	if (!r)
		r = empty_dir(AT_FDCWD, dir, LOCK_NAME);
	if (r)
		return error_errno(err, r, "cannot take %s", dir);
	*ret = take_fd(&fd);
	return 0;
}

bool state_alive(const char *dir)
{
	CLEANUP_FREE char *path = io_format("%s/" LOCK_NAME, dir);
	/* Root looks at users' directories: whatever the user put there, nothing is waited for. */
	CLEANUP_CLOSE int fd =
		path ? open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC) : -1;
	struct flock lock = whole_file;

	return fd >= 0 && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

int state_remove(const char *dir, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" LOCK_NAME, dir);
	int r = path ? empty_dir(AT_FDCWD, dir, LOCK_NAME) : -ENOMEM;

	/* From here on the directory may be a new owner's, who has another lock file in it. */
	if (!r && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	if (!r && rmdir(dir) < 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
		r = -errno;
	return r ? error_errno(err, r, "cannot remove %s", dir) : 0;
}

int state_sweep(const char *dir, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" LOCK_NAME, dir);
	CLEANUP_CLOSE int fd = -1;
	int r;

	if (!path)
		return -ENOMEM;
	if (access(dir, F_OK) < 0)
		return 0;
	r = try_lock(path, O_CREAT, &fd);
	if (r == -ESTALE || r == -ENOENT) /* somebody else swept it */
		return 0;
	if (r)
		return error_errno(err, r, "cannot remove %s", dir);
	r = state_remove(dir, err);
	return r ? r : 1;
}

static int add_name(char ***names, size_t *n, const char *name)
{
	char **more = realloc(*names, (*n + 2) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	*names = more;
	more[*n] = strdup(name);
	if (!more[*n])
		return -ENOMEM;
	more[++*n] = NULL;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int state_list(const char *folder, char ***ret, struct error *err)
{
	CLEANUP_DIR DIR *dir = opendir(folder);
	char **names = calloc(1, sizeof(*names));
	struct dirent *entry;
	size_t n = 0;
	int r = names ? 0 : -ENOMEM;

	while (!r && dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			r = add_name(&names, &n, entry->d_name);
	if (r) {
		state_list_free(names);
		return error_errno(err, r, "cannot list %s", folder);
	}
	qsort(names, n, sizeof(*names), compare_names);
	*ret = names;
	return 0;
}

void state_list_free(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}
