/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts virtio-fs shares, and gives their devices back. */

#include "agent/shares.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define PATIENCE_MS 3000 /* for one step; who asks waits 10 s */
#define DEVICES "/sys/bus/virtio/devices"
#define DRIVER "/sys/bus/virtio/drivers/virtiofs"
#define DEVICE_ID "0x001a" /* virtio 1.2, 5: file system device */

static const char *text(const json_t *share, const char *key)
{
	const char *value = json_string_value(json_object_get(share, key));

	return value ? value : "";
}

static int check(const json_t *wanted, struct error *err)
{
	const json_t *share;
	size_t i;

	if (!json_is_array(wanted))
		return error_set(err, -EINVAL, "\"shares\" is not an array");
	json_array_foreach (wanted, i, share)
		if (!*text(share, "tag") || *text(share, "target") != '/' ||
		    !text(share, "target")[1])
			return error_set(err, -EINVAL,
					 "share %zu is not {\"tag\", \"target\", \"readonly\"} "
					 "with an absolute path below /",
					 i);
	return 0;
}

static bool has(const json_t *list, const json_t *share)
{
	const json_t *other;
	size_t i;

	json_array_foreach (list, i, other)
		if (json_equal(other, share))
			return true;
	return false;
}

static int write_name(const char *file, const char *device)
{
	CLEANUP_CLOSE int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : io_write_full(fd, device, strlen(device));
}

static bool is_share(const char *device)
{
	CLEANUP_FREE char *path = io_format(DEVICES "/%s/device", device);
	CLEANUP_FREE char *id = NULL;

	return path && io_read_file(path, 64, &id, NULL) > 0 &&
	       !strncmp(id, DEVICE_ID, strlen(DEVICE_ID));
}

static bool is_bound(const char *device)
{
	CLEANUP_FREE char *path = io_format(DRIVER "/%s", device);

	return path && !access(path, F_OK);
}

/* The driver takes all devices that are shares, or lets go of them. */
static int set_driver(bool bind, struct error *err)
{
	CLEANUP_DIR DIR *dir = opendir(DEVICES);
	struct dirent *e;
	int r = 0;

	if (access(DRIVER, F_OK))
		return bind ? error_set(err, -ENODEV,
					"the kernel has no virtiofs driver (modprobe virtiofs)")
			    : 0;
	while (!r && dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || !is_share(e->d_name) || is_bound(e->d_name) == bind)
			continue;
		r = write_name(bind ? DRIVER "/bind" : DRIVER "/unbind", e->d_name);
		if (r)
			error_errno(err, r, "cannot %s device %s", bind ? "bind" : "unbind",
				    e->d_name);
	}
	return r;
}

static int bind_all(const json_t *none, struct error *err)
{
	return set_driver(true, err);
}

static int unbind_all(const json_t *none, struct error *err)
{
	return set_driver(false, err);
}

static int mount_share(const json_t *share, struct error *err)
{
	const char *tag = text(share, "tag"), *target = text(share, "target");
	unsigned long flags =
		MS_NODEV | (json_is_true(json_object_get(share, "readonly")) ? MS_RDONLY : 0);
	int r = io_make_dirs(target, 0755, err);

	if (r)
		return r;
	return mount(tag, target, "virtiofs", flags, NULL) < 0
		       ? error_errno(err, -errno, "cannot mount share %s at %s", tag, target)
		       : 0;
}

static int unmount_share(const json_t *share, struct error *err)
{
	const char *target = text(share, "target");

	/* Who unmounted it before us did our work. */
	if (umount2(target, UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		return error_errno(
			err, -errno, "cannot unmount share %s at %s%s", text(share, "tag"), target,
			errno == EBUSY ? " (programs have files or folders of it open)" : "");
	return 0;
}

/*
 * One step in a process of its own: when what serves the share is gone or hangs, the kernel may not
 * come back, and the agent has other work.
 */
static int apart(int (*step)(const json_t *share, struct error *err), const json_t *share,
		 struct error *err)
{
	struct result {
		int code;
		struct error err;
	} result = {0};
	struct pollfd done = {.events = POLLIN};
	int pair[2];
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return error_errno(err, -errno, "shares");
	pid = fork();
	if (!pid) {
		result.code = step(share, &result.err);
		_exit(write(pair[1], &result, sizeof(result)) != sizeof(result));
	}
	close(pair[1]);
	done.fd = pair[0];
	if (pid < 0)
		result.code = error_errno(&result.err, -errno, "shares");
	else if (poll(&done, 1, PATIENCE_MS) != 1 ||
		 read(pair[0], &result, sizeof(result)) != sizeof(result))
		result.code =
			error_set(&result.err, -ETIMEDOUT, "share %s: the host does not serve it",
				  share ? text(share, "tag") : "");
	close(pair[0]);
	if (pid > 0 && result.code == -ETIMEDOUT)
		kill(pid, SIGKILL); /* reaped when the kernel lets it go */
	else if (pid > 0)
		waitpid(pid, NULL, 0);
	if (result.code)
		*err = result.err;
	return result.code;
}

/* Unmounts what is not wanted; what stays mounted is left in the list. */
static int drop(const json_t *wanted, json_t *mounted, struct error *err)
{
	int r = 0;

	for (size_t i = json_array_size(mounted); !r && i-- > 0;) {
		const json_t *share = json_array_get(mounted, i);

		if (has(wanted, share))
			continue;
		r = apart(unmount_share, share, err);
		if (!r)
			json_array_remove(mounted, i);
	}
	return r;
}

int shares_set(const json_t *wanted, json_t **mounted, struct error *err)
{
	json_t *share;
	size_t i;
	int r = check(wanted, err);

	if (r)
		return r;
	if (!*mounted && !(*mounted = json_array()))
		return error_errno(err, -ENOMEM, "shares");
	r = drop(wanted, *mounted, err);
	if (!r && !json_array_size(wanted))
		return apart(unbind_all, NULL, err);
	if (!r)
		r = apart(bind_all, NULL, err);
	json_array_foreach ((json_t *)wanted, i, share) {
		if (r || has(*mounted, share))
			continue;
		r = apart(mount_share, share, err);
		if (!r)
			json_array_append(*mounted, share);
	}
	return r;
}
