/* SPDX-License-Identifier: Apache-2.0 */
/* Makes and removes the files behind the disks of VMs. */

#include "part/volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "vms/record.h"

int volume_folder(const char *node, const char *cluster, char **ret, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = paths_cache("volumes", NULL, &folder, err);

	/* Nodes may share the user's files. */
	if (!r && (strchr(node, '/') || *node == '.' || !*node))
		r = error_set(err, -EINVAL, "\"%s\" is not the name of a node", node);
	if (r)
		return r;
	*ret = io_format("%s/%s/%s", folder, node, cluster);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* -------- making -------- */

static int make_filesystem(const char *path, const char *kind, struct error *err)
{
	const char *const mkfs[] = {"mkfs.ext4", "-q", "-F", path, NULL};
	const struct process process = {.argv = mkfs, .die_with_parent = true};
	int r;

	if (!*kind)
		return 0;
	if (strcmp(kind, "ext4"))
		return error_set(err, -EOPNOTSUPP, "this Wisp cannot make a file system %s yet",
				 kind);
	r = process_run(&process, NULL, NULL, err);
	return r == -ENOENT ? error_set(err, r, "mkfs.ext4 is not here (package e2fsprogs)") : r;
}

/* It appears whole or not at all; who else made it meanwhile made the same. */
static int make_file(const json_t *disk, const char *path, struct error *err)
{
	CLEANUP_FREE char *new = io_format("%s.new-%d", path, getpid());
	CLEANUP_CLOSE int fd = -1;
	int r = 0;

	if (!new)
		return -ENOMEM;
	fd = open(new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || ftruncate(fd, json_integer_value(json_object_get(disk, "size"))) < 0)
		r = error_errno(err, -errno, "cannot make %s", path);
	if (!r)
		r = make_filesystem(new, record_text(disk, "filesystem"), err);
	if (!r && link(new, path) < 0 && errno != EEXIST)
		r = error_errno(err, -errno, "cannot make %s", path);
	unlink(new);
	return r;
}

int volume_make_folder_of(const char *path, struct error *err)
{
	CLEANUP_FREE char *folder = strdup(path);

	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	*strrchr(folder, '/') = 0;
	return io_make_dirs(folder, 0700, err);
}

static int make_disk(const json_t *disk, struct args *made, struct error *err)
{
	const char *path = record_text(disk, "path"), *name = record_text(disk, "name");
	bool own = json_is_true(json_object_get(disk, "own"));
	int r = 0;

	if (!strchr(path, '/'))
		return error_set(err, -EINVAL, "volume %s has no absolute path", name);
	if (own)
		r = volume_make_folder_of(path, err);
	if (!r && own && unlink(path) < 0 && errno != ENOENT)
		r = error_errno(err, -errno, "cannot make %s", path);
	if (!r && !own && !access(path, F_OK))
		return 0;
	if (!r && !json_object_get(disk, "size"))
		r = error_set(err, -ENOENT, "there is no %s, and without a size it is not made",
			      path);
	if (!r)
		r = make_file(disk, path, err);
	if (!r)
		args_add(made, "%s", path);
	return r ? error_prefix(err, r, "volume %s", name) : 0;
}

int volumes_make(const json_t *spec, struct args *made, struct error *err)
{
	const json_t *disk;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(spec, "disks"), i, disk)
		if (!r)
			r = make_disk(disk, made, err);
	if (!r && made->failed)
		r = error_set(err, -ENOMEM, "out of memory");
	if (r)
		volumes_undo(made);
	return r;
}

void volumes_undo(const struct args *made)
{
	for (size_t i = 0; i < made->n; i++)
		unlink(made->v[i]);
}

/* -------- removing -------- */

void volumes_remove(const char *folder, const char *vm)
{
	CLEANUP_FREE char *path = io_format("%s/%s", folder, vm);
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir && !rmdir(path))
		rmdir(folder);
}
