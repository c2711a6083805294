/* SPDX-License-Identifier: Apache-2.0 */
/* The disks that a VM writes to: into an epoch, and back. */

#include "mover/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/disk.h"

#define NAME_SIZE (MANIFEST_DISK_MAX + 1)

static const char *file_name(const char *id, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, MANIFEST_DISK "%s", id);
	return name;
}

/* A name of our own, whatever it was opened with. */
static int open_again(int fd, bool write)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
}

static int open_one(struct vmm *vmm, bool write, const json_t *told, struct disk *disk,
		    struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	const char *id = json_string_value(json_object_get(told, "id"));
	const char *path = json_string_value(json_object_get(told, "path"));
	int rc;

	*disk = (struct disk){.fd = -1, .copy = -1};
	if (!id || !path || strlen(id) >= sizeof(disk->id) || strpbrk(id, "/."))
		return error_set(err, -EPROTO, "wisp-vmm tells of a disk without a name");
	strcpy(disk->id, id);
	disk->path = strdup(path);
	disk->size = (uint64_t)json_integer_value(json_object_get(told, "size"));
	rc = vmm_call(vmm, "disk", json_pack("{s:s}", "id", id), -1, NULL, err);
	if (rc < 0)
		return rc;
	fd = jsonline_take_fd(&vmm->line);
	disk->fd = fd < 0 ? fd : open_again(fd, write);
	if (disk->fd < 0 || !disk->path)
		return error_errno(err, -errno, "cannot open disk %s of the VM", path);
	return 0;
}

int disks_open(struct vmm *vmm, bool write, struct disks *ret, struct error *err)
{
	json_t *result = NULL, *list, *told;
	size_t i;
	int rc = vmm_call(vmm, "disks", NULL, -1, &result, err);

	*ret = (struct disks){0};
	if (rc < 0)
		return rc;
	list = json_object_get(result, "disks");
	ret->disk = calloc(json_array_size(list) + 1, sizeof(*ret->disk));
	if (!ret->disk)
		rc = error_set(err, -ENOMEM, "out of memory");
	json_array_foreach (list, i, told) {
		if (rc == 0) {
			rc = open_one(vmm, write, told, &ret->disk[i], err);
			ret->n++;
		}
	}
	json_decref(result);
	return rc;
}

void disks_close(struct disks *disks)
{
	for (size_t i = 0; i < disks->n; i++) {
		disk_live_done(&disks->disk[i].live);
		cleanup_close_fd(&disks->disk[i].fd);
		cleanup_close_fd(&disks->disk[i].copy);
		free(disks->disk[i].path);
	}
	free(disks->disk);
	*disks = (struct disks){0};
}

void disks_flush(const struct disks *disks)
{
	for (size_t i = 0; i < disks->n; i++)
		fdatasync(disks->disk[i].fd);
}

int disks_take(struct disks *disks, struct vmm *vmm, int dir, struct error *err)
{
	char name[NAME_SIZE];
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < disks->n; i++) {
		struct disk *d = &disks->disk[i];

		d->copy = openat(dir, file_name(d->id, name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
				 0600);
		if (d->copy < 0)
			return error_errno(err, -errno, "cannot make %s", name);
		d->cloned = disk_clone(d->fd, d->copy);
		d->live = (struct disk_live){
			.id = d->id, .size = d->size, .from = d->fd, .to = d->copy};
		if (!d->cloned)
			rc = disk_live_begin(&d->live, vmm, err);
		if (rc < 0)
			error_prefix(err, rc, "disk %s", d->path);
	}
	return rc;
}

/* What is to be copied. */
struct copying {
	struct disks *disks;
	struct vmm *vmm;
};

static int run_copy(struct work *work, unsigned thread, struct error *err)
{
	struct copying *c = work->arg;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < c->disks->n; i++) {
		struct disk *d = &c->disks->disk[i];
		uint64_t start = io_now_ns();

		if (d->cloned)
			continue;
		rc = disk_live_copy(&d->live, c->vmm, work, err);
		d->ns = io_now_ns() - start;
		if (rc < 0)
			error_prefix(err, rc, "disk %s", d->path);
	}
	return rc;
}

/* Bytes that the file takes, of which holes are no part. */
static uint64_t used_bytes(const struct disk *d)
{
	struct stat st;

	return !d->cloned && !fstat(d->fd, &st) ? (uint64_t)st.st_blocks * 512 : 0;
}

int disks_copy(struct disks *disks, struct vmm *vmm, bool gentle, const struct progress *progress,
	       struct error *err)
{
	struct copying copying = {disks, vmm};
	struct work work = {.threads = 1,
			    .run = run_copy,
			    .arg = &copying,
			    .progress = progress,
			    .what = "copying disks",
			    .gentle = gentle};

	for (size_t i = 0; i < disks->n; i++)
		work.total += used_bytes(&disks->disk[i]);
	return disks->n ? work_run(&work, err) : 0;
}

/* 1: the parent's file has the content that its manifest says; 0: not any more; -ECANCELED. */
static int is_whole(int parent, const char *name, uint64_t size, const char *sum,
		    const struct progress *progress, struct error *err)
{
	CLEANUP_CLOSE int fd = openat(parent, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char now[DIGEST_TEXT];
	struct stat st;
	uint64_t bytes;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return 0;
	rc = disk_sum(fd, size, progress, now, &bytes, err);
	return rc == -ECANCELED ? rc : rc == 0 && !strcmp(now, sum);
}

/*
 * What the parent has of it is the same: one file for both. Where it cannot be, it stays two; also
 * where the parent's is damaged, since ours is good.
 */
static int share(struct disk *d, int dir, const char *name, int parent, const json_t *file,
		 const struct progress *progress, struct error *err)
{
	int whole = is_whole(parent, name, d->size, json_string_value(json_object_get(file, "sum")),
			     progress, err);

	d->parent_damaged = !whole;
	if (whole == 1 && !linkat(parent, name, dir, ".same", 0) &&
	    renameat(dir, ".same", dir, name) < 0)
		unlinkat(dir, ".same", 0);
	return whole < 0 ? whole : 0;
}

/* Sums and syncs a copy. *file is a new object for the manifest. */
static int finish_one(const struct disk *d, const struct progress *progress, json_t **file,
		      struct error *err)
{
	char sum[DIGEST_TEXT];
	uint64_t bytes = 0;
	int rc = disk_sum(d->copy, d->size, progress, sum, &bytes, err);

	if (rc == 0 && fsync(d->copy) < 0)
		rc = error_errno(err, -errno, "cannot sync the copy");
	if (rc < 0)
		return error_prefix(err, rc, "disk %s", d->path);
	*file = json_pack("{s:I, s:I, s:s}", "size", (json_int_t)d->size, "data", (json_int_t)bytes,
			  "sum", sum);
	return 0;
}

int disks_finish(struct disks *disks, int dir, int parent, const json_t *parent_files,
		 const struct progress *progress, json_t **files, struct error *err)
{
	int rc = 0;

	*files = json_object();
	for (size_t i = 0; rc == 0 && i < disks->n; i++) {
		struct disk *d = &disks->disk[i];
		char name[NAME_SIZE];
		json_t *old = json_object_get(parent_files, file_name(d->id, name)), *file = NULL;

		rc = finish_one(d, progress, &file, err);
		if (rc == 0 && json_equal(old, file))
			rc = share(d, dir, name, parent, file, progress, err);
		if (file)
			json_object_set_new(*files, name, file);
	}
	return rc;
}

json_t *disks_report(const struct disks *disks)
{
	json_t *report = json_object();

	for (size_t i = 0; i < disks->n; i++) {
		const struct disk *d = &disks->disk[i];

		json_object_set_new(report, d->id,
				    json_pack("{s:s, s:I, s:I, s:I, s:b}", "how",
					      d->cloned ? "cloned" : "copied", "ns",
					      (json_int_t)d->ns, "bytes", (json_int_t)d->live.bytes,
					      "vm_bytes", (json_int_t)d->live.vm_bytes,
					      "parent_damaged", d->parent_damaged));
	}
	return report;
}

/* -------- of an epoch -------- */

/* A disk in an epoch, opened and checked to be of its size. */
struct kept {
	char name[NAME_SIZE];
	const char *sum;
	uint64_t size, bytes;
	int fd;
};

static int kept_open(const struct epoch *epoch, const char *name, const json_t *file,
		     struct kept *ret, struct error *err)
{
	struct stat st;

	*ret = (struct kept){.fd = openat(epoch->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW),
			     .sum = json_string_value(json_object_get(file, "sum")),
			     .size = (uint64_t)json_integer_value(json_object_get(file, "size"))};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	if (ret->fd < 0 || fstat(ret->fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s/%s", epoch->name, name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != ret->size || !ret->sum)
		return error_set(err, -EBADMSG,
				 "%s/%s has %lld bytes, not the %" PRIu64 " of its manifest",
				 epoch->name, name, (long long)st.st_size, ret->size);
	return 0;
}

static int kept_check(const struct epoch *epoch, struct kept *kept, const struct progress *progress,
		      struct error *err)
{
	char sum[DIGEST_TEXT];
	int rc = disk_sum(kept->fd, kept->size, progress, sum, &kept->bytes, err);

	if (rc < 0)
		return error_prefix(err, rc, "%s/%s", epoch->name, kept->name);
	return strcmp(sum, kept->sum)
		       ? error_set(err, -EBADMSG, "%s/%s is damaged: restore another epoch",
				   epoch->name, kept->name)
		       : 0;
}

static bool is_disk(const char *name)
{
	return !strncmp(name, MANIFEST_DISK, strlen(MANIFEST_DISK));
}

int disks_verify(const struct epoch *epoch, const struct progress *progress, uint64_t *bytes,
		 struct error *err)
{
	json_t *files = json_object_get(epoch->manifest.json, "files"), *file;
	const char *name;

	json_object_foreach (files, name, file) {
		struct kept kept;
		int rc;

		if (!is_disk(name))
			continue;
		rc = kept_open(epoch, name, file, &kept, err);
		if (rc == 0)
			rc = kept_check(epoch, &kept, progress, err);
		cleanup_close_fd(&kept.fd);
		if (rc < 0)
			return rc;
		if (bytes)
			*bytes += kept.bytes;
	}
	return 0;
}

int disks_link(const struct epoch *epoch, int dir, json_t *files, struct error *err)
{
	json_t *old = json_object_get(epoch->manifest.json, "files"), *file;
	const char *name;

	json_object_foreach (old, name, file) {
		if (!is_disk(name))
			continue;
		if (linkat(epoch->dir, name, dir, name, 0) < 0)
			return error_errno(err, -errno, "cannot keep %s/%s", epoch->name, name);
		json_object_set(files, name, file);
	}
	return 0;
}

static bool is_empty(int fd)
{
	return lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

/* Until it is closed: a VM that runs with it has it locked. */
static int lock(const struct disk *d, struct error *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (!fcntl(d->fd, F_OFD_SETLK, &lock))
		return 0;
	return error_set(err, -EBUSY, "disk %s is used by another process: does the VM still run?",
			 d->path);
}

/* Gives a disk its content, unless it has it. *done says which. */
static int put(const struct epoch *epoch, struct kept *kept, const struct disk *d, bool force,
	       const struct progress *progress, const char **done, struct error *err)
{
	char sum[DIGEST_TEXT] = "";
	uint64_t bytes;
	int rc = lock(d, err);

	*done = "unchanged";
	if (rc == 0 && !force && !is_empty(d->fd))
		rc = disk_sum(d->fd, d->size, progress, sum, &bytes, err);
	if (rc < 0 || !strcmp(sum, kept->sum))
		return rc;
	if (*sum)
		return error_set(err, -EEXIST,
				 "disk %s was written since epoch %" PRIu64
				 ": --force puts it back to what it was then, and what was written "
				 "since is lost; another path leaves it alone",
				 d->path, epoch->manifest.epoch);
	*done = "restored";
	rc = kept_check(epoch, kept, progress, err);
	if (rc == 0)
		rc = disk_copy(kept->fd, d->fd, d->size, progress, err);
	return rc < 0 ? error_prefix(err, rc, "disk %s", d->path) : 0;
}

static int restore_one(const struct epoch *epoch, const struct disk *d, bool force,
		       const struct progress *progress, const char **done, struct error *err)
{
	struct kept kept;
	char name[NAME_SIZE];
	const json_t *file = json_object_get(json_object_get(epoch->manifest.json, "files"),
					     file_name(d->id, name));
	int rc;

	*done = "not saved";
	if (!file && force)
		return 0;
	if (!file)
		return error_set(err, -ENOENT,
				 "epoch %" PRIu64 " has no content of disk %s (%s): --force takes "
				 "it as it is",
				 epoch->manifest.epoch, d->id, d->path);
	rc = kept_open(epoch, name, file, &kept, err);
	if (rc == 0 && kept.size != d->size)
		rc = error_set(err, -EINVAL,
			       "disk %s has %" PRIu64 " bytes, in the checkpoint %" PRIu64
			       ": truncate -s %" PRIu64 " %s",
			       d->path, d->size, kept.size, kept.size, d->path);
	if (rc == 0)
		rc = put(epoch, &kept, d, force, progress, done, err);
	cleanup_close_fd(&kept.fd);
	return rc;
}

/* Every disk of the epoch is a disk of the VM. */
static int check_all(const struct epoch *epoch, const struct disks *disks, struct error *err)
{
	json_t *files = json_object_get(epoch->manifest.json, "files"), *file;
	const char *name;

	json_object_foreach (files, name, file) {
		size_t i = 0;

		if (!is_disk(name))
			continue;
		while (i < disks->n && strcmp(disks->disk[i].id, name + strlen(MANIFEST_DISK)))
			i++;
		if (i == disks->n)
			return error_set(err, -EINVAL,
					 "%s has the disk %s, the VM does not: start it with one",
					 epoch->name, name + strlen(MANIFEST_DISK));
	}
	return 0;
}

int disks_restore(struct vmm *vmm, const struct epoch *epoch, bool force,
		  const struct progress *progress, json_t **report, struct error *err)
{
	struct disks disks;
	int rc = disks_open(vmm, true, &disks, err);

	*report = json_object();
	if (rc == 0)
		rc = check_all(epoch, &disks, err);
	for (size_t i = 0; rc == 0 && i < disks.n; i++) {
		const char *done;

		rc = restore_one(epoch, &disks.disk[i], force, progress, &done, err);
		if (rc == 0)
			json_object_set_new(*report, disks.disk[i].id, json_string(done));
	}
	disks_close(&disks);
	return rc;
}
