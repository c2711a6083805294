/* SPDX-License-Identifier: Apache-2.0 */
/* From the initrd to the root file system: read-only below, tmpfs above. */

#include "agent/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/wire.h"

#define LOWER "/wisp/lower"
#define UPPER "/wisp/rw"
#define ROOT "/wisp/root"
#define DEVICE_WAIT_NS 30000000000ULL
#define RECHECK_MS 500 /* should an event be lost */

int wait_for_device(int (*fn)(void *arg, struct error *err), void *arg, struct error *err)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
	/* Listening begins before the first look, so that no event falls between. */
	CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
				      NETLINK_KOBJECT_UEVENT);
	uint64_t end = io_now_ns() + DEVICE_WAIT_NS;

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return error_errno(err, -errno, "cannot listen for devices");
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char event[4096];
		int r = fn(arg, err);

		if (r != -EAGAIN)
			return r;
		if (io_now_ns() > end)
			return error_prefix(err, -ETIMEDOUT, "not there after %llu s",
					    DEVICE_WAIT_NS / 1000000000);
		poll(&p, 1, RECHECK_MS);
		while (recv(fd, event, sizeof(event), 0) > 0)
			continue;
	}
}

const char *root_detect(const void *data, size_t size)
{
	static const struct {
		const char *type;
		size_t offset;
		uint32_t magic, mask;
	} types[] = {
		{"squashfs", 0, 0x73717368, 0xffffffff},
		{"erofs", 1024, 0xe0f5e1e2, 0xffffffff},
		{"ext4", 1024 + 56, EXT4_SUPER_MAGIC, 0xffff},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		struct wire_reader r = wire_reader(data, size);

		wire_get_bytes(&r, types[i].offset);
		if ((wire_get_u32(&r) & types[i].mask) == types[i].magic && wire_ok(&r))
			return types[i].type;
	}
	return NULL;
}

static int mount_block(void *arg, struct error *err)
{
	const char *device = arg, *type;
	CLEANUP_CLOSE int fd = open(device, O_RDONLY | O_CLOEXEC);
	uint8_t super[4096];
	int r;

	if (fd < 0)
		return error_errno(err,
				   errno == ENOENT || errno == ENXIO || errno == ENODEV ? -EAGAIN
											: -errno,
				   "cannot open root device %s", device);
	r = io_pread_full(fd, super, sizeof(super), 0);
	if (r)
		return error_errno(err, r, "cannot read root device %s", device);
	type = root_detect(super, sizeof(super));
	if (!type)
		return error_set(err, -EINVAL, "%s has none of squashfs, erofs, ext4", device);
	if (mount(device, LOWER, type, MS_RDONLY, NULL) < 0)
		return error_errno(err, -errno, "cannot mount %s as %s (module missing?)", device,
				   type);
	return 0;
}

/* virtiofs says EINVAL while no device has the tag, ENODEV while the module is not there. */
static int mount_virtiofs(void *arg, struct error *err)
{
	const char *tag = arg;

	if (!mount(tag, LOWER, "virtiofs", MS_RDONLY, NULL))
		return 0;
	return error_errno(err, errno == EINVAL || errno == ENODEV ? -EAGAIN : -errno,
			   "cannot mount virtiofs tag %s", tag);
}

static int mount_lower(const char *source, struct error *err)
{
	static const char prefix[] = "virtiofs:";
	size_t n = strlen(prefix);

	if (!strncmp(source, prefix, n))
		return wait_for_device(mount_virtiofs, (void *)(source + n), err);
	return wait_for_device(mount_block, (void *)source, err);
}

static int make_dirs(struct error *err)
{
	static const char *const dirs[] = {"/wisp", LOWER, UPPER, ROOT};

	for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++)
		if (mkdir(dirs[i], 0755) < 0 && errno != EEXIST)
			return error_errno(err, -errno, "cannot create %s", dirs[i]);
	return 0;
}

static int mount_overlay(struct error *err)
{
	static const char options[] =
		"lowerdir=" LOWER ",upperdir=" UPPER "/upper,workdir=" UPPER "/work";
	struct stat lower;
	unsigned long flags = 0;

	/*
	 * From an ordinary user's virtiofsd root's files come as nobody's: programs with the
	 * set-user-ID bit would lose root's rights (mount) instead of gaining them.
	 */
	if (!stat(LOWER, &lower) && lower.st_uid != 0)
		flags = MS_NOSUID;
	if (mount("tmpfs", UPPER, "tmpfs", 0, "mode=0755") < 0 || mkdir(UPPER "/upper", 0755) < 0 ||
	    mkdir(UPPER "/work", 0755) < 0)
		return error_errno(err, -errno, "cannot set up the tmpfs above the root");
	if (mount("wisp", ROOT, "overlay", flags, options) < 0)
		return error_errno(err, -errno, "cannot mount the overlay (module missing?)");
	return 0;
}

/*
 * The launchers of MPI look for wisp-rsh in the root, but it belongs to this agent's version
 * and comes with it in the initrd. A root without /usr/bin does without.
 */
static void place_rsh(const struct log *log)
{
	static const char path[] = "/usr/bin/wisp-rsh";
	CLEANUP_FREE char *data = NULL;
	CLEANUP_CLOSE int fd = -1;
	ssize_t size = io_read_file(path, 16u << 20, &data, NULL);
	int r;

	if (size < 0)
		return;
	fd = open(ROOT "/usr/bin/wisp-rsh", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		  0755);
	r = fd < 0 ? -errno : io_write_full(fd, data, (size_t)size);
	if (r < 0)
		log_warn(log, "root", "cannot write %s: %s", path, strerror(-r));
}

static int move_mounts(struct error *err)
{
	static const char *const dirs[] = {"/dev", "/proc", "/sys"};

	for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++) {
		char target[64];

		snprintf(target, sizeof(target), ROOT "%s", dirs[i]);
		if ((mkdir(target, 0755) < 0 && errno != EEXIST) ||
		    mount(dirs[i], target, NULL, MS_MOVE, NULL) < 0)
			return error_errno(err, -errno, "cannot move %s to the root", dirs[i]);
	}
	return 0;
}

/* Frees the memory of the initrd: everything on this file system and not below a mount. */
static void remove_tree(int dir_fd, dev_t dev)
{
	CLEANUP_DIR DIR *dir = fdopendir(dir_fd);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct stat st;
		int fd;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != dev)
			continue;
		if (!S_ISDIR(st.st_mode)) {
			unlinkat(dir_fd, e->d_name, 0);
			continue;
		}
		fd = openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			remove_tree(fd, dev);
		unlinkat(dir_fd, e->d_name, AT_REMOVEDIR);
	}
	if (!dir)
		close(dir_fd);
}

static void remove_initrd(const struct log *log)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;
	struct stat st;

	/* Should / be anything else than an initrd, nothing may be deleted there. */
	if (fd < 0 || fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0 ||
	    (fs.f_type != RAMFS_MAGIC && fs.f_type != TMPFS_MAGIC)) {
		log_warn(log, "root", "/ is no initrd: its files are kept");
		if (fd >= 0)
			close(fd);
		return;
	}
	remove_tree(fd, st.st_dev);
}

int root_switch(const struct log *log, const char *source, struct error *err)
{
	int r = make_dirs(err);

	if (!r)
		r = mount_lower(source, err);
	if (!r)
		r = mount_overlay(err);
	if (!r)
		r = move_mounts(err);
	if (r)
		return r;
	place_rsh(log);
	remove_initrd(log);
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return error_errno(err, -errno, "cannot make %s the root", source);
	return 0;
}
