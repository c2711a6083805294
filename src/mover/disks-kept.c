/* SPDX-License-Identifier: Apache-2.0 */
/* The disks in an epoch: what they are called, opened, checked, and kept by merges. */

#include "mover/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/disk.h"
#include "mover/disks-kept.h"

const char *disks_file(const char *id, char name[DISKS_FILE])
{
	snprintf(name, DISKS_FILE, MANIFEST_DISK "%s", id);
	return name;
}

int kept_open(const struct epoch *epoch, const char *name, const json_t *file, struct kept *ret,
	      struct error *err)
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

int kept_check(const struct epoch *epoch, struct kept *kept, const struct progress *progress,
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

bool disks_is(const char *name)
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

		if (!disks_is(name))
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
		if (!disks_is(name))
			continue;
		if (linkat(epoch->dir, name, dir, name, 0) < 0)
			return error_errno(err, -errno, "cannot keep %s/%s", epoch->name, name);
		json_object_set(files, name, file);
	}
	return 0;
}
