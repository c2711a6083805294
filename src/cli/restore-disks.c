/* SPDX-License-Identifier: Apache-2.0 */
/* Where the disks of a VM that is restored are. */

#include "cli/restore-disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/manifest.h"
#include "vms/record.h"

/* An empty file, if there is nothing and the epoch has content for it. */
static int make(const char *path, const json_t *file, struct args *made, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	json_int_t size = json_integer_value(json_object_get(file, "size"));

	if (!file || !access(path, F_OK))
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make disk %s (--disk names another place)",
				   path);
	args_add(made, "%s", path);
	return ftruncate(fd, (off_t)size) < 0
		       ? error_errno(err, -errno,
				     "cannot make disk %s of %" JSON_INTEGER_FORMAT " bytes", path,
				     size)
		       : 0;
}

static int place(json_t *disk, const char *path, const json_t *file, struct args *made,
		 struct error *err)
{
	CLEANUP_FREE char *whole = NULL;
	int r = make(path, file, made, err);

	if (r)
		return r;
	whole = realpath(path, NULL);
	if (!whole)
		return error_errno(err, -errno, "cannot find disk %s", path);
	/* The keeper that starts wisp-vmm is elsewhere. */
	return json_object_set_new(disk, "path", json_string(whole)) < 0
		       ? error_set(err, -EINVAL, "disk %s: the path is not UTF-8 text", whole)
		       : 0;
}

int restore_disks(json_t *config, const json_t *files, const struct args *given, struct args *made,
		  struct error *err)
{
	json_t *disk;
	size_t i, used = 0;
	int r = 0;

	json_array_foreach (json_object_get(config, "disks"), i, disk) {
		/* block0 is the root. */
		CLEANUP_FREE char *name = io_format(MANIFEST_DISK "block%zu", i + 1);
		CLEANUP_FREE char *path = NULL;

		if (json_is_true(json_object_get(disk, "readonly")))
			continue;
		path = io_format("%s",
				 used < given->n ? given->v[used] : record_text(disk, "path"));
		used++;
		r = name && path ? place(disk, path, json_object_get(files, name), made, err)
				 : error_errno(err, -ENOMEM, "disks");
		if (r)
			return r;
	}
	if (used < given->n)
		r = error_set(err, -EINVAL, "--disk %s: the VM writes %zu disks", given->v[used],
			      used);
	return r;
}

void restore_disks_undo(const struct args *made)
{
	for (size_t i = 0; i < made->n; i++)
		unlink(made->v[i]);
}
