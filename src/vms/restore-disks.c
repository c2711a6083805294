/* SPDX-License-Identifier: Apache-2.0 */
/* Where the disks of a VM that is restored are. */

#include "vms/restore-disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/disks.h"
#include "vms/record.h"

/* A file with the content that the epoch has. */
static int make(const struct restore_disks *request, const char *path, const char *name,
		struct args *made, struct error *err)
{
	struct store store;
	struct epoch epoch;
	int r = store_open(request->dir, false, &store, err);

	if (r)
		return r;
	r = epoch_open(&store, request->epoch, &epoch, err);
	if (!r) {
		r = disks_make(&epoch, name, path, NULL, err);
		epoch_close(&epoch);
	}
	store_close(&store);
	if (!r)
		args_add(made, "%s", path);
	return r;
}

/* A file with nothing in it. */
static bool is_empty(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_DATA) < 0 &&
	       errno == ENXIO;
}

/* Nothing is to be written to a place that only the checkpoint names. */
static int check_untold(const char *path, bool missing, const json_t *file, struct error *err)
{
	if (!missing && (!json_integer_value(json_object_get(file, "data")) || !is_empty(path)))
		return 0;
	return error_set(err, -ENOENT,
			 "disk %s, as the checkpoint calls it, %s: --disk PATH says where it is to "
			 "be made, --force has it made there",
			 path, missing ? "is not there" : "is empty");
}

/* Sees to a disk of the VM: its path is that, and something is there. */
static int place(const struct restore_disks *request, json_t *disk, const char *path, bool told,
		 const char *name, struct args *made, struct error *err)
{
	const json_t *file = json_object_get(request->files, name);
	bool missing = access(path, F_OK) < 0;
	CLEANUP_FREE char *whole = NULL;
	int r = told || request->force || !file ? 0 : check_untold(path, missing, file, err);

	if (!r && missing && file)
		r = make(request, path, name, made, err);
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

int restore_disks(const struct restore_disks *request, json_t *config, struct args *made,
		  struct error *err)
{
	const struct args *given = request->given;
	json_t *disk;
	size_t i, used = 0;
	int r = 0;

	json_array_foreach (json_object_get(config, "disks"), i, disk) {
		/* block0 is the root. */
		CLEANUP_FREE char *name = io_format(MANIFEST_DISK "block%zu", i + 1);
		CLEANUP_FREE char *path = NULL;
		bool told = used < given->n;

		if (json_is_true(json_object_get(disk, "readonly")))
			continue;
		path = io_format("%s", told ? given->v[used] : record_text(disk, "path"));
		used++;
		r = name && path ? place(request, disk, path, told, name, made, err)
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
