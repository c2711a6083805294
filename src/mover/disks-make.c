/* SPDX-License-Identifier: Apache-2.0 */
/* A new file with the content of a disk of an epoch: it appears whole, or not at all. */

#include "mover/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/disk.h"
#include "mover/disks-kept.h"

/* Until it has the name it is to have. */
struct draft {
	int fd, dir;
	char *name; /* NULL: none, so that nothing is left when we are killed */
};

static int draft_open(const char *path, struct draft *ret, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	const char *dir = copy ? dirname(copy) : NULL;

	*ret = (struct draft){.fd = -1, .dir = -1};
	if (!copy)
		return error_errno(err, -ENOMEM, "disk %s", path);
	ret->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret->dir >= 0)
		ret->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (ret->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		ret->name = io_format("%s.XXXXXX", path);
		ret->fd = ret->name ? mkostemp(ret->name, O_CLOEXEC) : -1;
	}
	return ret->fd < 0 ? error_errno(err, -errno, "cannot make disk %s", path) : 0;
}

/* Gives it its name, if nothing has that. */
static int draft_publish(const struct draft *draft, const char *path, struct error *err)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", draft->fd);
	if (fsync(draft->fd) < 0 ||
	    linkat(AT_FDCWD, draft->name ? draft->name : self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) <
		    0 ||
	    fsync(draft->dir) < 0)
		return error_errno(err, -errno, "cannot make disk %s", path);
	return 0;
}

static void draft_done(struct draft *draft)
{
	if (draft->name && draft->fd >= 0)
		unlink(draft->name);
	free(draft->name);
	cleanup_close_fd(&draft->fd);
	cleanup_close_fd(&draft->dir);
}

int disks_make(const struct epoch *epoch, const char *name, const char *path,
	       const struct progress *progress, struct error *err)
{
	const json_t *files = json_object_get(epoch->manifest.json, "files");
	struct draft draft;
	struct kept kept;
	int rc = kept_open(epoch, name, json_object_get(files, name), &kept, err);

	if (rc == 0)
		rc = kept_check(epoch, &kept, progress, err);
	if (rc == 0) {
		rc = draft_open(path, &draft, err);
		if (rc == 0)
			rc = disk_copy(kept.fd, draft.fd, kept.size, progress, NULL, err);
		if (rc == 0)
			rc = draft_publish(&draft, path, err);
		draft_done(&draft);
	}
	cleanup_close_fd(&kept.fd);
	return rc;
}
