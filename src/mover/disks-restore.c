/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a VM get what an epoch has of them. Everything is looked at before anything is
 * written: what cannot be restored whole loses nobody what the disks have now.
 */

#include "mover/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/disk.h"
#include "mover/disks-kept.h"

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

/* It has another content than the epoch: perhaps since a restore was killed that filled it. */
static int check_part(const struct epoch *epoch, const struct disk *d, bool again,
		      const struct progress *progress, const struct disks_put *put,
		      struct error *err)
{
	uint64_t place = 0;
	int part = disk_is_part(d->fd, put->kept.fd, d->size, progress, &place, err);

	if (part < 0 || (part && again))
		return part < 0 ? part : 0;
	if (part)
		return error_set(err, -EEXIST,
				 "disk %s has a part of what it had in epoch %" PRIu64
				 " and nothing else, as a restore leaves it that was killed: "
				 "--again fills it",
				 d->path, epoch->manifest.epoch);
	return error_set(
		err, -EEXIST,
		"disk %s was written since epoch %" PRIu64 " (byte %" PRIu64
		" is in no part of it): --force puts it back to what it was then, and what "
		"was written since is lost; another path leaves it alone",
		d->path, epoch->manifest.epoch, place);
}

/* Whether the disk is to be written, and whether that loses what it has. */
static int examine(const struct epoch *epoch, const struct disk *d, enum disks_how how,
		   const struct progress *progress, struct disks_put *put, struct error *err)
{
	bool force = how == DISKS_FORCE;
	bool empty = is_empty(d->fd);
	char sum[DIGEST_TEXT] = "";
	uint64_t bytes;
	int rc = lock(d, err);

	if (rc == 0 && !force && !empty)
		rc = disk_sum(d->fd, d->size, progress, sum, &bytes, err);
	if (rc < 0)
		return rc;
	put->done = "unchanged";
	if (!strcmp(sum, put->kept.sum))
		return 0;
	put->done = "restored";
	put->write = true;
	put->loses = force && !empty;
	rc = kept_check(epoch, &put->kept, progress, err);
	return rc == 0 && *sum ? check_part(epoch, d, how == DISKS_AGAIN, progress, put, err) : rc;
}

static int plan_one(const struct epoch *epoch, const struct disk *d, enum disks_how how,
		    const struct progress *progress, struct disks_put *put, struct error *err)
{
	char name[DISKS_FILE];
	const json_t *file = json_object_get(json_object_get(epoch->manifest.json, "files"),
					     disks_file(d->id, name));
	int rc;

	put->done = "not saved";
	if (!file && how == DISKS_FORCE)
		return 0;
	if (!file)
		return error_set(err, -ENOENT,
				 "epoch %" PRIu64 " has no content of disk %s (%s): --force takes "
				 "it as it is",
				 epoch->manifest.epoch, d->id, d->path);
	rc = kept_open(epoch, name, file, &put->kept, err);
	if (rc == 0 && put->kept.size != d->size)
		rc = error_set(err, -EINVAL,
			       "disk %s has %" PRIu64 " bytes, in the checkpoint %" PRIu64
			       ": truncate -s %" PRIu64 " %s",
			       d->path, d->size, put->kept.size, put->kept.size, d->path);
	return rc < 0 ? rc : examine(epoch, d, how, progress, put, err);
}

/* Every disk of the epoch is a disk of the VM. */
static int check_all(const struct epoch *epoch, const struct disks *disks, struct error *err)
{
	json_t *files = json_object_get(epoch->manifest.json, "files"), *file;
	const char *name;

	json_object_foreach (files, name, file) {
		size_t i = 0;

		if (!disks_is(name))
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

int disks_plan(struct vmm *vmm, const struct epoch *epoch, enum disks_how how,
	       const struct progress *progress, struct disks_plan *ret, struct error *err)
{
	int rc;

	*ret = (struct disks_plan){0};
	rc = disks_open(vmm, true, &ret->disks, err);
	if (rc == 0)
		rc = check_all(epoch, &ret->disks, err);
	ret->put = calloc(ret->disks.n + 1, sizeof(*ret->put));
	if (rc == 0 && !ret->put)
		rc = error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; ret->put && i < ret->disks.n; i++)
		ret->put[i].kept.fd = -1;
	for (size_t i = 0; rc == 0 && i < ret->disks.n; i++) {
		rc = plan_one(epoch, &ret->disks.disk[i], how, progress, &ret->put[i], err);
		ret->loses |= ret->put[i].loses;
	}
	return rc;
}

/* Synced also when nothing is written: who was killed may not have come to it. */
static int put_one(const struct disk *d, struct disks_put *put, const struct progress *progress,
		   struct error *err)
{
	uint64_t written = 0;
	int rc;

	if (!put->write)
		return 0;
	rc = disk_copy(put->kept.fd, d->fd, d->size, progress, &written, err);
	if (rc == 0 && fsync(d->fd) < 0)
		rc = error_errno(err, -errno, "cannot sync it");
	if (!written)
		put->done = "unchanged";
	return rc;
}

int disks_put(struct disks_plan *plan, const struct progress *progress, json_t **report,
	      struct error *err)
{
	int rc = 0;

	*report = json_object();
	for (size_t i = 0; rc == 0 && i < plan->disks.n; i++) {
		const struct disk *d = &plan->disks.disk[i];

		rc = put_one(d, &plan->put[i], progress, err);
		if (rc < 0)
			error_prefix(err, rc, "disk %s", d->path);
		json_object_set_new(*report, d->id, json_string(plan->put[i].done));
	}
	disks_plan_done(plan);
	return rc;
}

void disks_plan_done(struct disks_plan *plan)
{
	for (size_t i = 0; plan->put && i < plan->disks.n; i++)
		cleanup_close_fd(&plan->put[i].kept.fd);
	free(plan->put);
	disks_close(&plan->disks);
	*plan = (struct disks_plan){0};
}
