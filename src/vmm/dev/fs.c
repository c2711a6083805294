/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system device (virtio 1.2, 5.11): a folder of the host in the guest. All of its
 * requests (FUSE's) are served by another program, virtiofsd, which maps guest memory.
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "vmm/dev/vhost-user.h"
#include "vmm/devices.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 1024
#define QUEUES 2 /* high priority, requests; Linux uses no more (6.1) */

struct fs {
	struct virtio virtio;
	struct virtio_fs_config config;
	struct vhost_user back;
	char stays[160];
};

static struct fs *fs_of(struct virtio *dev)
{
	return (struct fs *)dev;
}

static void fs_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	memcpy(data, (const char *)&fs_of(dev)->config + offset, len);
}

static int fs_activate(struct virtio *dev, struct error *err)
{
	/* The other program would read holes where memory has not come. */
	if (dev->device.vm->userfault)
		return error_set(err, -EBUSY, "the memory of this VM has not all come yet");
	return vhost_user_start(&fs_of(dev)->back, dev, QUEUES, err);
}

/* What the other program wrote nobody has logged; while it serves the VM no log begins. */
static void mark_all_dirty(struct vm *vm)
{
	for (unsigned i = 0; i < vm->mem.nregions; i++)
		memory_mark_dirty(&vm->mem, vm->mem.region[i].gpa, vm->mem.region[i].size);
}

static void fs_deactivate(struct virtio *dev)
{
	vhost_user_stop(&fs_of(dev)->back);
	mark_all_dirty(dev->device.vm);
}

static int fs_pause(struct virtio *dev)
{
	return vhost_user_stop(&fs_of(dev)->back);
}

static void fs_resume(struct virtio *dev)
{
	struct error err;

	if (vhost_user_start(&fs_of(dev)->back, dev, QUEUES, &err))
		virtio_broken(dev, "%s", err.text);
}

/* What is served elsewhere is not kicked here, but a driver may kick before we hear of it. */
static void fs_kick(struct virtio *dev, struct virtq *q)
{
}

/* The other program knows which files the guest has open, and cannot hand that on. */
static const char *fs_stays(const struct virtio *dev)
{
	return dev->active ? ((const struct fs *)dev)->stays : NULL;
}

static void fs_stats(struct virtio *dev, json_t *object)
{
	json_object_set_new(object, "connected", json_boolean(fs_of(dev)->back.fd >= 0));
}

static void fs_destroy(struct virtio *dev)
{
	vhost_user_close(&fs_of(dev)->back);
	free(dev);
}

static const struct state_field fs_state[] = {
	STATE_ARRAY(struct fs, config.tag),
	STATE_END,
};

static const struct virtio_class fs_class = {
	.id = VIRTIO_ID_FS,
	.name = "fs",
	.pci_class = 0x018000, /* storage, of no class of its own */
	.config_read = fs_config_read,
	.activate = fs_activate,
	.deactivate = fs_deactivate,
	.kick = fs_kick,
	.pause = fs_pause,
	.resume = fs_resume,
	.stays = fs_stays,
	.stats = fs_stats,
	.destroy = fs_destroy,
	.state = fs_state,
};

/* The tag is not ended by NUL when it is as long as it may be (5.11.4). */
static int set_tag(struct fs *fs, const char *tag, struct error *err)
{
	size_t n = strlen(tag);

	if (!n || n > sizeof(fs->config.tag))
		return error_set(err, -EINVAL, "fs: tag=%s: it has 1 to %zu bytes", tag,
				 sizeof(fs->config.tag));
	memcpy(fs->config.tag, tag, n);
	fs->config.num_request_queues = htole32(QUEUES - 1);
	snprintf(fs->stays, sizeof(fs->stays),
		 "share %.*s is in use: unmount it in the guest, and unbind its driver", (int)n,
		 tag);
	return 0;
}

/* By the path of its socket, or by an inherited connection. */
static int open_back(struct fs *fs, const struct device_config *cfg, struct error *err)
{
	const char *path = device_config_get(cfg, "socket"), *text = device_config_get(cfg, "fd");
	const char *tag = device_config_get(cfg, "tag");
	unsigned number;
	int fd, r;

	if (!path == !text)
		return error_set(err, -EINVAL, "fs: give one of socket=PATH and fd=NUMBER");
	r = text ? parse_uint(text, "fd", 0, INT_MAX, &number, err) : 0;
	if (r)
		return r;
	/* The number stays open for the next start, after a reboot; that finds its other end gone.
	 */
	fd = path ? io_unix_connect(path, err) : fcntl((int)number, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return path ? fd : error_errno(err, -errno, "fs: fd=%s", text);
	r = vhost_user_open(&fs->back, fd, err);
	return r ? error_prefix(err, r, "fs: share %s", tag) : 0;
}

static int fs_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
		     struct error *err)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return error_errno(err, -ENOMEM, "fs");
	fs->back.fd = fs->back.error_fd = -1;
	fs->virtio.cls = &fs_class;
	fs->virtio.config_size = sizeof(fs->config);
	fs->virtio.nqueues = QUEUES;
	for (unsigned i = 0; i < QUEUES; i++)
		fs->virtio.queue[i].max = QUEUE_SIZE;
	r = set_tag(fs, device_config_get(cfg, "tag"), err);
	if (!r)
		r = open_back(fs, cfg, err);
	if (!r)
		r = virtio_create(&fs->virtio, vm, &fs_desc, err);
	if (r) {
		vhost_user_close(&fs->back);
		free(fs);
		return r;
	}
	*ret = &fs->virtio.device;
	return 0;
}

static const struct device_key fs_keys[] = {
	{"tag", "NAME", "what the guest mounts it by", true},
	{"socket", "PATH", "UNIX socket of virtiofsd, which serves it by vhost-user", false},
	{"fd", "NUMBER", "an inherited connection to it, instead of socket=", false},
	{0},
};

const struct device_desc fs_desc = {
	.name = "fs",
	.summary = "a folder of the host (virtio-fs), served by virtiofsd",
	.keys = fs_keys,
	.max = 8,
	.create = fs_create,
};
