/* SPDX-License-Identifier: Apache-2.0 */
/* The disks that a VM writes to, into an epoch. */

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
#include "mover/disks-kept.h"

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
	disk->fd = fd < 0 ? fd : disk_open_again(fd, write);
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

int disks_flush(const struct disks *disks, const _Atomic bool *cancel, struct error *err)
{
	for (size_t i = 0; i < disks->n; i++) {
		const struct disk *d = &disks->disk[i];
		int rc = disk_flush(d->fd, d->size, cancel, err);

		if (rc < 0)
			return error_prefix(err, rc, "disk %s", d->path);
	}
	return 0;
}

int disks_take(struct disks *disks, struct vmm *vmm, int dir, struct error *err)
{
	char name[DISKS_FILE];
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < disks->n; i++) {
		struct disk *d = &disks->disk[i];

		d->copy = openat(dir, disks_file(d->id, name),
				 O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
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
		char name[DISKS_FILE];
		json_t *old = json_object_get(parent_files, disks_file(d->id, name)), *file = NULL;

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
