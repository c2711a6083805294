/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of the checkpoints of a job: opened, listed, its VMs' epochs. */

#include "job/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "mover/epoch.h"
#include "mover/verify.h"

#define NAME_SIZE 48
#define HALF ".tmp" /* of lib/sealed.h */

/* The number that a name of a manifest spells in its one way, or 0. */
static uint64_t sequence_of(const char *name)
{
	uint64_t sequence = 0;
	char again[NAME_SIZE];

	if (sscanf(name, "checkpoint-%" SCNu64, &sequence) != 1)
		return 0;
	snprintf(again, sizeof(again), CHECKPOINTS_FILE, sequence);
	return strcmp(name, again) ? 0 : sequence;
}

/* Half a manifest, that a dead writer left. */
static bool is_half(const char *name)
{
	char whole[NAME_SIZE];
	size_t n = strlen(name), tail = strlen(HALF);

	if (n <= tail || n - tail >= sizeof(whole) || strcmp(name + n - tail, HALF))
		return false;
	memcpy(whole, name, n - tail);
	whole[n - tail] = 0;
	return sequence_of(whole);
}

static DIR *list(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

bool checkpoints_are_there(const char *path)
{
	CLEANUP_DIR DIR *d = opendir(path);
	struct dirent *entry;
	struct stat st;

	while (d && (entry = readdir(d)))
		if (sequence_of(entry->d_name))
			return true;
	return d && !fstatat(dirfd(d), CHECKPOINTS_VMS, &st, AT_SYMLINK_NOFOLLOW) &&
	       S_ISDIR(st.st_mode);
}

int checkpoints_path(const json_t *environment, const char *cluster, char **ret, struct error *err)
{
	const char *dir = json_string_value(
		json_object_get(json_object_get(environment, "checkpoint"), "directory"));
	CLEANUP_FREE char *all = NULL;
	char *path;
	int r = dir ? 0 : paths_data("checkpoints", &all, err);

	if (r)
		return r;
	path = dir ? strdup(dir) : io_format("%s/%s", all, cluster);
	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	*ret = path;
	return 0;
}

static int take_lock(struct checkpoints *c, struct error *err)
{
	int r;

	c->lock = openat(c->dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock < 0)
		return error_errno(err, -errno, "cannot open %s/.lock", c->path);
	r = io_lock(c->lock, c->path, err);
	if (r == -EBUSY)
		error_set(
			err, r,
			"another process makes or removes a checkpoint in %s: wait for it, or use "
			"another folder",
			c->path);
	return r;
}

int checkpoints_claim(const char *path, int *ret, struct error *err)
{
	CLEANUP_FREE char *file = io_format("%s/.restarted", path);
	CLEANUP_CLOSE int fd = -1;
	int r;

	*ret = -1;
	if (!file)
		return error_set(err, -ENOMEM, "out of memory");
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && (errno == EROFS || errno == EACCES))
		return 0;
	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s", file);
	r = io_lock(fd, file, err);
	if (r == -EBUSY)
		error_set(err, r,
			  "a cluster that was restarted from %s still runs: end it where that was "
			  "done (wisp cluster stop), or restart a copy of the folder",
			  path);
	if (!r)
		*ret = take_fd(&fd);
	return r;
}

static int sweep(const struct checkpoints *c, struct error *err)
{
	CLEANUP_DIR DIR *d = list(c->dir, ".");
	struct dirent *entry;

	if (!d)
		return error_errno(err, -errno, "cannot read %s", c->path);
	while ((entry = readdir(d)))
		if (is_half(entry->d_name) && unlinkat(c->dir, entry->d_name, 0) < 0)
			return error_errno(err, -errno,
					   "cannot remove %s/%s, left by a dead writer", c->path,
					   entry->d_name);
	return 0;
}

int checkpoints_open(const char *path, bool write, struct checkpoints *ret, struct error *err)
{
	struct checkpoints c = {.path = strdup(path), .dir = -1, .lock = -1};
	int rc = c.path ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0 && write)
		rc = io_make_dirs(path, 0700, err);
	if (rc == 0) {
		c.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (c.dir < 0)
			rc = error_errno(err, -errno, "cannot open checkpoint folder %s", path);
	}
	if (rc == 0 && write)
		rc = take_lock(&c, err);
	if (rc == 0 && write)
		rc = sweep(&c, err);
	if (rc < 0)
		checkpoints_close(&c);
	else
		*ret = c;
	return rc;
}

void checkpoints_close(struct checkpoints *c)
{
	free(c->path);
	cleanup_close_fd(&c->dir);
	cleanup_close_fd(&c->lock);
	*c = (struct checkpoints){.dir = -1, .lock = -1};
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int checkpoints_list(const struct checkpoints *c, uint64_t **ret, size_t *n, struct error *err)
{
	CLEANUP_DIR DIR *d = list(c->dir, ".");
	CLEANUP_FREE uint64_t *found = NULL;
	size_t used = 0, room = 0;
	struct dirent *entry;

	if (!d)
		return error_errno(err, -errno, "cannot read %s", c->path);
	while ((entry = readdir(d))) {
		uint64_t sequence = sequence_of(entry->d_name), *bigger;

		if (!sequence)
			continue;
		if (used == room) {
			room = room ? 2 * room : 16;
			bigger = realloc(found, room * sizeof(*found));
			if (!bigger)
				return error_set(err, -ENOMEM, "out of memory");
			found = bigger;
		}
		found[used++] = sequence;
	}
	if (used)
		qsort(found, used, sizeof(*found), ascending);
	*ret = take_ptr(found);
	*n = used;
	return 0;
}

int checkpoints_read(const struct checkpoints *c, uint64_t sequence, struct job_manifest *ret,
		     struct error *err)
{
	CLEANUP_FREE uint64_t *found = NULL;
	size_t n = 0;
	int rc = sequence ? 0 : checkpoints_list(c, &found, &n, err);

	if (rc == 0 && !sequence && !n)
		rc = error_set(err, -ENOENT, "%s has no checkpoint of a whole job", c->path);
	if (rc == 0 && !sequence)
		sequence = found[n - 1];
	return rc < 0 ? rc : job_manifest_read(c->dir, c->path, sequence, ret, err);
}

int checkpoints_vm(const struct checkpoints *c, const char *name, char **folder, char **path,
		   struct error *err)
{
	CLEANUP_FREE char *relative = io_format(CHECKPOINTS_VMS "/%s", name);
	CLEANUP_FREE char *whole = io_format("%s/" CHECKPOINTS_VMS "/%s", c->path, name);
	int rc = paths_check_name(name, "VM", err);

	if (rc == 0 && (!relative || !whole))
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = io_make_dirs(whole, 0700, err);
	if (rc < 0)
		return rc;
	*folder = take_ptr(relative);
	*path = take_ptr(whole);
	return 0;
}

/* No part of it is a link: whoever made the folder cannot lead us elsewhere. */
static int check_inside(const struct checkpoints *c, const char *folder, struct error *err)
{
	CLEANUP_CLOSE int vms =
		openat(c->dir, CHECKPOINTS_VMS, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP_CLOSE int fd = vms < 0 ? -1
				       : openat(vms, strrchr(folder, '/') + 1,
						O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0)
		return 0;
	if (errno == ELOOP || errno == ENOTDIR)
		return error_set(err, -EBADMSG,
				 "%s/%s is, or leads through, something that is no "
				 "folder",
				 c->path, folder);
	return error_errno(err, -errno, "cannot open %s/%s", c->path, folder);
}

int checkpoints_store(const struct checkpoints *c, const struct job_vm *vm, struct store *ret,
		      struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", c->path, vm->folder);
	int rc = path ? check_inside(c, vm->folder, err) : error_set(err, -ENOMEM, "out of memory");

	return rc < 0 ? rc : store_open(path, false, ret, err);
}

/* -------- verifying -------- */

struct checkpoints_seen {
	char folder[80];
	uint64_t epoch;
};

static bool was_seen(const struct checkpoints_verified *v, const char *folder, uint64_t epoch)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->seen[i].epoch == epoch && !strcmp(v->seen[i].folder, folder))
			return true;
	return false;
}

static int note_seen(struct checkpoints_verified *v, const char *folder, uint64_t epoch,
		     struct error *err)
{
	if (v->n == v->room) {
		size_t room = v->room ? 2 * v->room : 16;
		struct checkpoints_seen *bigger = realloc(v->seen, room * sizeof(*bigger));

		if (!bigger)
			return error_set(err, -ENOMEM, "out of memory");
		v->seen = bigger;
		v->room = room;
	}
	v->seen[v->n].epoch = epoch;
	snprintf(v->seen[v->n++].folder, sizeof(v->seen->folder), "%s", folder);
	return 0;
}

/* That it is the one which is meant. */
static int check_digest(const struct store *store, const struct job_vm *vm, struct error *err)
{
	CLEANUP_FREE char *name = io_format("%s/%" PRIu64, store->path, vm->epoch);
	struct manifest m;
	int rc = name ? epoch_manifest(store, vm->epoch, &m, err)
		      : error_set(err, -ENOMEM, "out of memory");

	if (rc < 0)
		return rc;
	rc = manifest_check_digest(&m, name, vm->digest, err);
	manifest_done(&m);
	return rc;
}

/* An epoch, and what it is based on. */
static int verify_one(const struct store *store, uint64_t epoch, const struct progress *progress,
		      uint64_t *bytes, uint64_t *parent, struct error *err)
{
	struct manifest m;
	uint64_t size = 0;
	int rc = epoch_manifest(store, epoch, &m, err);

	if (rc < 0)
		return rc;
	*parent = m.parent_epoch;
	manifest_done(&m);
	rc = verify_epoch(store, epoch, progress, &size, err);
	*bytes += size;
	return rc;
}

int checkpoints_verify_vm(const struct checkpoints *c, const struct job_vm *vm,
			  struct checkpoints_verified *verified, const struct progress *progress,
			  uint64_t *bytes, struct error *err)
{
	struct store store;
	int rc = checkpoints_store(c, vm, &store, err);

	*bytes = 0;
	if (rc < 0)
		return rc;
	rc = check_digest(&store, vm, err);
	for (uint64_t epoch = vm->epoch, parent = 0;
	     rc == 0 && epoch && !was_seen(verified, vm->folder, epoch); epoch = parent) {
		rc = verify_one(&store, epoch, progress, bytes, &parent, err);
		if (rc == 0)
			rc = note_seen(verified, vm->folder, epoch, err);
	}
	store_close(&store);
	return rc;
}
