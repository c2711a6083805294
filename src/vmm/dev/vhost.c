/* SPDX-License-Identifier: Apache-2.0 */
/* Hands virtqueues to the host kernel's vhost drivers and takes them back. */

#include "vmm/dev/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/dirty.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

#define LOG_ALL (1ULL << VHOST_F_LOG_ALL)

int vhost_mode_parse(const char *text, enum vhost_mode *ret, struct error *err)
{
	if (!text || !strcmp(text, "auto"))
		*ret = VHOST_AUTO;
	else if (!strcmp(text, "on"))
		*ret = VHOST_ON;
	else if (!strcmp(text, "off"))
		*ret = VHOST_OFF;
	else
		return error_set(err, -EINVAL, "vhost=%s: it is auto, on or off", text);
	return 0;
}

int vhost_call(const struct vhost *v, unsigned long request, const void *arg)
{
	return ioctl(v->fd, request, arg) < 0 ? -errno : 0;
}

int vhost_set(const struct vhost *v, unsigned long request, uint64_t value)
{
	/* Smaller integers are its first bytes: vhost is for little-endian hosts here. */
	return vhost_call(v, request, &value);
}

int vhost_open(struct vhost *v, const char *kind, struct error *err)
{
	char path[32];
	int r = 0;

	*v = (struct vhost){.fd = -1, .error_fd = -1};
	snprintf(path, sizeof(path), "/dev/vhost-%s", kind);
	v->fd = open(path, O_RDWR | O_CLOEXEC);
	if (v->fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return error_set(err, -ENOENT, "no %s here (modprobe vhost_%s)", path, kind);
	if (v->fd < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	v->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->error_fd < 0 || ioctl(v->fd, VHOST_SET_OWNER) < 0 ||
	    ioctl(v->fd, VHOST_GET_FEATURES, &v->features) < 0) {
		r = error_errno(err, -errno, "cannot set up %s", path);
		vhost_close(v);
	}
	return r;
}

void vhost_close(struct vhost *v)
{
	loop_remove(&v->error_source);
	if (v->fd >= 0)
		close(v->fd);
	if (v->error_fd >= 0)
		close(v->error_fd);
	v->fd = v->error_fd = -1;
}

static void on_error(void *arg, uint32_t events)
{
	struct vhost *v = arg;
	eventfd_t count;

	eventfd_read(v->error_fd, &count);
	virtio_broken(v->dev, "the host kernel found a queue that breaks the rules");
}

static int set_memory(struct vhost *v)
{
	const struct memory *mem = &v->dev->device.vm->mem;
	struct {
		struct vhost_memory head;
		struct vhost_memory_region region[2];
	} table = {.head.nregions = mem->nregions};

	for (unsigned i = 0; i < mem->nregions; i++)
		table.region[i] = (struct vhost_memory_region){
			.guest_phys_addr = mem->region[i].gpa,
			.memory_size = mem->region[i].size,
			.userspace_addr = (uintptr_t)mem->region[i].host,
		};
	return vhost_call(v, VHOST_SET_MEM_TABLE, &table);
}

static int set_addresses(struct vhost *v, struct virtq *q)
{
	struct vhost_vring_addr addr = {
		.index = q->index,
		.flags = v->logging ? 1u << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)q->desc_host,
		.avail_user_addr = (uintptr_t)q->avail_host,
		.used_user_addr = (uintptr_t)q->used_host,
		.log_guest_addr = q->used,
	};

	return vhost_call(v, VHOST_SET_VRING_ADDR, &addr);
}

/* Logging is a feature to vhost, which no driver sees. */
static int set_features(struct vhost *v)
{
	uint64_t features = v->dev->features & v->features & ~LOG_ALL;

	return vhost_set(v, VHOST_SET_FEATURES, features | (v->logging ? LOG_ALL : 0));
}

static int set_log(struct vhost *v)
{
	uint64_t size, base;

	base = (uintptr_t)dirty_vhost_log(v->dev->device.vm, &size);
	v->logging = base != 0;
	return base ? vhost_call(v, VHOST_SET_LOG_BASE, &base) : 0;
}

static int start_queue(struct vhost *v, struct virtq *q)
{
	struct vhost_vring_state state = {.index = q->index, .num = q->size};
	struct vhost_vring_file file = {.index = q->index, .fd = q->kick_fd};
	int r = vhost_call(v, VHOST_SET_VRING_NUM, &state);

	state.num = q->next_avail;
	if (!r)
		r = vhost_call(v, VHOST_SET_VRING_BASE, &state);
	if (!r)
		r = set_addresses(v, q);
	if (!r)
		r = vhost_call(v, VHOST_SET_VRING_KICK, &file);
	/* While its vector is masked the signals stay in this eventfd (pci/msix.h). */
	file.fd = virtq_call_fd(q);
	if (!r)
		r = vhost_call(v, VHOST_SET_VRING_CALL, &file);
	file.fd = v->error_fd;
	if (!r)
		r = vhost_call(v, VHOST_SET_VRING_ERR, &file);
	return r;
}

int vhost_start(struct vhost *v, struct virtio *dev, unsigned nqueues, struct error *err)
{
	int r;

	v->dev = dev;
	v->nqueues = nqueues;
	r = virtio_check_enabled(dev, nqueues, err);
	if (r)
		return r;
	r = set_memory(v);
	if (!r)
		r = set_log(v);
	if (!r)
		r = set_features(v);
	for (unsigned i = 0; !r && i < nqueues; i++)
		r = start_queue(v, &dev->queue[i]);
	if (!r && !v->error_source)
		r = loop_add_fd(dev->device.vm->loop, v->error_fd, EPOLLIN, on_error, v,
				&v->error_source);
	if (r)
		return error_errno(err, r, "%s: vhost refused its queues", dev->device.id);
	v->running = true;
	virtio_hand_over(dev, nqueues);
	return 0;
}

void vhost_log_dirty(struct vhost *v)
{
	int r;

	if (!v->running)
		return;
	r = set_log(v);
	if (!r)
		r = set_features(v);
	for (unsigned i = 0; !r && i < v->nqueues; i++)
		r = set_addresses(v, &v->dev->queue[i]);
	if (r)
		virtio_broken(v->dev, "the host kernel cannot log what it writes: %s",
			      strerrordesc_np(-r));
}

void vhost_stop(struct vhost *v)
{
	if (!v->running)
		return;
	v->running = false;
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtq *q = &v->dev->queue[i];
		struct vhost_vring_state state = {.index = i};
		struct vhost_vring_file none = {.index = i, .fd = VHOST_FILE_UNBIND};

		if (!vhost_call(v, VHOST_GET_VRING_BASE, &state))
			q->next_avail = (uint16_t)state.num;
		vhost_call(v, VHOST_SET_VRING_KICK, &none);
		vhost_call(v, VHOST_SET_VRING_CALL, &none);
		virtq_take_back(q);
	}
}
