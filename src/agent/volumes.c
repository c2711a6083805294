/* SPDX-License-Identifier: Apache-2.0 */
/* Finds disks by their serial numbers and mounts what is on them. */

#include "agent/volumes.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static const char *text(const json_t *volume, const char *key)
{
	const char *value = json_string_value(json_object_get(volume, key));

	return value ? value : "";
}

static int check(const json_t *wanted, struct error *err)
{
	const json_t *volume;
	size_t i;

	if (!json_is_array(wanted))
		return error_set(err, -EINVAL, "\"volumes\" is not an array");
	json_array_foreach (wanted, i, volume)
		if (!*text(volume, "disk") || *text(volume, "target") != '/' ||
		    !text(volume, "target")[1])
			return error_set(err, -EINVAL,
					 "volume %zu is not {\"disk\", \"target\", \"readonly\"} "
					 "with an absolute path below /",
					 i);
	return 0;
}

static bool has_serial(const char *device, const char *serial)
{
	CLEANUP_FREE char *path = io_format("/sys/block/%s/serial", device);
	CLEANUP_FREE char *is = NULL;

	if (!path || io_read_file(path, 256, &is, NULL) <= 0)
		return false;
	is[strcspn(is, "\n")] = 0;
	return !strncmp(is, serial, VOLUME_SERIAL);
}

/* Its file in /dev, a new string. */
static int find_disk(const char *serial, char **ret, struct error *err)
{
	CLEANUP_DIR DIR *dir = opendir("/sys/block");
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.' && has_serial(e->d_name, serial)) {
			*ret = io_format("/dev/%s", e->d_name);
			return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
		}
	return error_set(err, -ENODEV, "there is no disk with the serial number %s", serial);
}

static bool is_mounted(const char *device, const char *target)
{
	struct stat disk, there;

	return !stat(device, &disk) && !stat(target, &there) && there.st_dev == disk.st_rdev;
}

/* 0, or why not: -EINVAL when something else is on the disk, -ENODEV without a driver. */
static int try_kind(const char *device, const char *target, const char *kind, unsigned long flags)
{
	return mount(device, target, kind, flags, NULL) < 0 ? -errno : 0;
}

/* As mount(8) does without blkid: one driver after the other looks. */
static int try_all(const char *device, const char *target, unsigned long flags)
{
	FILE *kinds = fopen("/proc/filesystems", "re");
	int r = try_kind(device, target, "ext4", flags);
	char line[64], kind[64];

	while (r && (r == -EINVAL || r == -ENODEV) && kinds && fgets(line, sizeof(line), kinds))
		if (sscanf(line, "\t%63s", kind) == 1 && strcmp(kind, "ext4") != 0 &&
		    !try_kind(device, target, kind, flags))
			r = 0;
	if (kinds)
		fclose(kinds);
	return r;
}

static int mount_one(const json_t *volume, struct error *err)
{
	const char *target = text(volume, "target");
	unsigned long flags =
		MS_NODEV | (json_is_true(json_object_get(volume, "readonly")) ? MS_RDONLY : 0);
	CLEANUP_FREE char *device = NULL;
	int r = find_disk(text(volume, "disk"), &device, err);

	if (!r)
		r = io_make_dirs(target, 0755, err);
	if (r || is_mounted(device, target))
		return r;
	r = try_all(device, target, flags);
	if (r == -EINVAL || r == -ENODEV)
		return error_set(err, r,
				 "cannot mount disk %s at %s: there is no file system on it that "
				 "this kernel knows (modules: [ext4] in the environment?)",
				 text(volume, "disk"), target);
	return r ? error_errno(err, r, "cannot mount disk %s at %s", text(volume, "disk"), target)
		 : 0;
}

int volumes_mount(const json_t *wanted, struct error *err)
{
	const json_t *volume;
	size_t i;
	int r = check(wanted, err);

	json_array_foreach (wanted, i, volume)
		if (!r)
			r = mount_one(volume, err);
	return r;
}
