/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may open /dev/vfio/GROUP has the devices of that group: the file is the user's while the
 * cluster has them, and root's else. (Documentation/driver-api/vfio.rst of Linux 6.1.)
 */

#include "node/helper-devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define DRIVER "vfio-pci"

struct place {
	const char *root, *address;
};

/* What a link of the device's folder ends with; NULL when there is none. */
static char *link_name(const struct place *p, const char *link)
{
	CLEANUP_FREE char *path =
		io_format("%s/sys/bus/pci/devices/%s/%s", p->root, p->address, link);
	char target[256];
	ssize_t n = path ? readlink(path, target, sizeof(target) - 1) : -1;
	const char *slash;

	if (n < 0)
		return NULL;
	target[n] = 0;
	slash = strrchr(target, '/');
	return strdup(slash ? slash + 1 : target);
}

static int write_file(const struct place *p, const char *file, const char *text, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/sys/bus/pci/%s", p->root, file);
	CLEANUP_CLOSE int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return error_errno(err, -errno, "device %s: cannot write \"%s\" to %s", p->address,
				   text, path ? path : file);
	return 0;
}

static bool is_driven(const struct place *p)
{
	CLEANUP_FREE char *driver = link_name(p, "driver");

	return driver && !strcmp(driver, DRIVER);
}

/* Its own driver may have it again. */
static void give_back(const struct place *p, const char *override)
{
	struct error ignored;

	if (!write_file(p, override, "\n", &ignored))
		write_file(p, "drivers_probe", p->address, &ignored);
}

static int bind_driver(const struct place *p, struct error *err)
{
	CLEANUP_FREE char *override = io_format("devices/%s/driver_override", p->address);
	CLEANUP_FREE char *unbind = io_format("devices/%s/driver/unbind", p->address);
	CLEANUP_FREE char *driver = link_name(p, "driver");
	int r;

	if (is_driven(p))
		return 0;
	if (!override || !unbind)
		return error_set(err, -ENOMEM, "out of memory");
	r = write_file(p, override, DRIVER, err);
	if (!r && driver)
		r = write_file(p, unbind, p->address, err);
	if (!r)
		r = write_file(p, "drivers_probe", p->address, err);
	if (!r && !is_driven(p))
		r = error_set(err, -ENODEV,
			      "device %s: " DRIVER
			      " does not take it (is the module loaded, and an "
			      "IOMMU on? \"wisp doctor\" tells)",
			      p->address);
	if (r)
		give_back(p, override);
	return r;
}

static char *group_file(const struct place *p)
{
	CLEANUP_FREE char *group = link_name(p, "iommu_group");

	return group ? io_format("%s/dev/vfio/%s", p->root, group) : NULL;
}

static int give_to(const struct place *p, uid_t uid, gid_t gid, struct error *err)
{
	CLEANUP_FREE char *path = group_file(p);

	if (!path)
		return error_set(err, -ENODEV, "device %s is behind no IOMMU", p->address);
	if (chmod(path, 0600) || chown(path, uid, gid))
		return error_errno(err, -errno, "device %s: %s", p->address, path);
	return 0;
}

int devices_give(const char *root, const json_t *addresses, uid_t uid, gid_t gid, struct error *err)
{
	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	const json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (addresses, i, item) {
		const struct place p = {root, json_string_value(item)};

		if (!r && p.address)
			r = bind_driver(&p, err);
		if (!r && p.address)
			r = give_to(&p, uid, gid, err);
	}
	/*
	 * Devices see all of a VM's memory; how much that is the control group says. Where not even
	 * root may allow it (containers) the limit may do as it is, or wisp-vmm tells of it.
	 */
	if (!r && i)
		setrlimit(RLIMIT_MEMLOCK, &all);
	return r;
}

/* A group can be opened once: whom we keep from it we would give a device that is in use. */
static int take_from(const struct place *p, struct error *err)
{
	CLEANUP_FREE char *path = group_file(p);
	CLEANUP_CLOSE int fd = -1;

	if (!path)
		return 0;
	if (chown(path, 0, 0) && errno != ENOENT)
		return error_errno(err, -errno, "device %s: %s", p->address, path);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == EBUSY)
		return error_set(err, -EBUSY,
				 "device %s is still used (\"fuser %s\" tells by whom)", p->address,
				 path);
	return 0;
}

int devices_take(const char *root, const json_t *addresses, struct error *err)
{
	const json_t *item;
	size_t i;
	int ret = 0;

	json_array_foreach (addresses, i, item) {
		const struct place p = {root, json_string_value(item)};
		int r = p.address ? take_from(&p, ret ? NULL : err) : 0;

		if (!ret)
			ret = r;
	}
	return ret;
}
