/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio vsock device (specification 5.10): stream sockets between the guest and programs
 * on the host, by vhost-vsock (AF_VSOCK on the host) or by UNIX sockets that this process
 * serves (vsock-mux.c, vsock-conn.c). Configuration and choice of the back end.
 */

#include "vmm/dev/vsock.h"

#include <endian.h>
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/loop.h"
#include "lib/parse.h"
#include "vmm/devices.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 256
#define EVENT_SIZE 16

static struct vsock *vsock_of(struct virtio *dev)
{
	return (struct vsock *)dev;
}

static uint64_t vsock_features(struct virtio *dev)
{
	return 0; /* streams */
}

static void vsock_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	struct virtio_vsock_config config = {.guest_cid = htole64(vsock_of(dev)->cid)};

	memcpy(data, (char *)&config + offset, len);
}

static int kernel_start(struct vsock *vs, struct error *err)
{
	int r = vhost_start(&vs->vhost, &vs->virtio, VSOCK_EVENT, err);

	if (r)
		return r;
	r = vhost_set(&vs->vhost, VHOST_VSOCK_SET_RUNNING, 1);
	if (!r)
		return 0;
	vhost_stop(&vs->vhost);
	return error_errno(err, r, "%s: vhost-vsock does not start", vs->virtio.device.id);
}

/*
 * vhost-vsock logs its rings, not what it writes into buffers: those that the queue has now are
 * marked, which are all that the guest will look at, as streams do not outlive a restore.
 */
static void mark_buffers(struct virtq *q)
{
	struct memory *mem = &q->dev->device.vm->mem;
	const volatile struct vring_desc *desc = q->desc_host;

	for (unsigned i = 0; mem->dirty && i < q->size; i++)
		if ((desc[i].flags & (VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT)) ==
		    VRING_DESC_F_WRITE)
			memory_mark_dirty(mem, desc[i].addr, desc[i].len);
}

static void kernel_stop(struct vsock *vs)
{
	if (!vs->vhost.running)
		return;
	vhost_set(&vs->vhost, VHOST_VSOCK_SET_RUNNING, 0);
	vhost_stop(&vs->vhost);
	mark_buffers(&vs->virtio.queue[VSOCK_RX]);
}

static void start(struct vsock *vs)
{
	struct conn *c, *next;

	vs->rx.q = &vs->virtio.queue[VSOCK_RX];
	vs->running = true;
	vs->starved = vs->tx_blocked = false;
	virtq_disable_kicks(vs->rx.q);
	loop_modify_fd(vs->listen_source, EPOLLIN);
	for (c = TAILQ_FIRST(&vs->all); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (conn_attach(c))
			conn_reset(c);
		else if (c->hung_up)
			vsock_want_work(c);
		else if (c->state == CONN_CONNECTING)
			loop_set_timer(vs->retry, 1, 0);
	}
	vsock_work(vs);
}

static int vsock_activate(struct virtio *dev, struct error *err)
{
	struct vsock *vs = vsock_of(dev);

	if (vs->vhost.fd >= 0)
		return kernel_start(vs, err);
	start(vs);
	return 0;
}

/* Sockets are left alone too: what comes from them would have to go to guest memory. */
static int vsock_pause(struct virtio *dev)
{
	struct vsock *vs = vsock_of(dev);
	struct conn *c;

	kernel_stop(vs);
	if (!vs->running)
		return 0;
	vs->running = false;
	loop_modify_fd(vs->listen_source, 0);
	loop_set_timer(vs->retry, 0, 0);
	TAILQ_FOREACH(c, &vs->all, all)
	conn_detach(c);
	rxpool_release(&vs->rx);
	return 0;
}

static void vsock_resume(struct virtio *dev)
{
	struct vsock *vs = vsock_of(dev);
	struct error err;

	if (vs->vhost.fd < 0)
		start(vs);
	else if (kernel_start(vs, &err))
		virtio_broken(dev, "%s", err.text);
}

static void vsock_restored(struct virtio *dev)
{
	vsock_of(dev)->reset_event = true;
	vsock_kick_event(vsock_of(dev));
}

/* The driver is gone, and its sockets; what it sent is still delivered. */
static void vsock_deactivate(struct virtio *dev)
{
	struct vsock *vs = vsock_of(dev);
	struct conn *c, *next;

	kernel_stop(vs);
	if (vs->running)
		rxpool_release(&vs->rx);
	vs->running = false;
	vs->reset_event = vs->reset_told = false;
	vs->nresets = 0;
	for (c = TAILQ_FIRST(&vs->all); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->state != CONN_HELLO)
			conn_leave(c, false);
	}
}

static void vsock_kick(struct virtio *dev, struct virtq *q)
{
	struct vsock *vs = vsock_of(dev);

	if (q->index == VSOCK_EVENT)
		vsock_kick_event(vs);
	else if (q->index == VSOCK_RX)
		vsock_kick_rx(vs);
	else
		vsock_kick_tx(vs);
}

static void vsock_log_dirty(struct virtio *dev)
{
	vhost_log_dirty(&vsock_of(dev)->vhost);
}

static void vsock_stats(struct virtio *dev, json_t *object)
{
	struct vsock *vs = vsock_of(dev);

	json_object_set_new(object, "vhost", json_boolean(vs->vhost.fd >= 0));
	if (vs->vhost.fd >= 0)
		return;
	json_object_set_new(object, "connections", json_integer(vs->nconns));
	json_object_set_new(object, "opened", json_integer((json_int_t)vs->opened));
	json_object_set_new(object, "refused", json_integer((json_int_t)vs->refused));
	json_object_set_new(object, "bytes-to-guest", json_integer((json_int_t)vs->to_guest));
	json_object_set_new(object, "bytes-to-host", json_integer((json_int_t)vs->to_host));
}

static void vsock_free(struct vsock *vs)
{
	conn_listen_stop(vs);
	while (!TAILQ_EMPTY(&vs->all))
		conn_free(TAILQ_FIRST(&vs->all));
	vhost_close(&vs->vhost);
	free(vs);
}

static void vsock_destroy(struct virtio *dev)
{
	vsock_free(vsock_of(dev));
}

static const struct virtio_class vsock_class = {
	.id = VIRTIO_ID_VSOCK,
	.name = "vsock",
	.pci_class = 0x078000, /* communication, other */
	.features = vsock_features,
	.config_read = vsock_config_read,
	.activate = vsock_activate,
	.restored = vsock_restored,
	.deactivate = vsock_deactivate,
	.kick = vsock_kick,
	.pause = vsock_pause,
	.resume = vsock_resume,
	.log_dirty = vsock_log_dirty,
	.stats = vsock_stats,
	.destroy = vsock_destroy,
};

static int open_vhost(struct vsock *vs, struct error *err)
{
	int r = vhost_open(&vs->vhost, "vsock", err);

	if (r)
		return r;
	r = vhost_set(&vs->vhost, VHOST_VSOCK_SET_GUEST_CID, vs->cid);
	if (r == -EADDRINUSE)
		return error_set(err, r, "vsock: another VM of this host has cid=%llu",
				 (unsigned long long)vs->cid);
	return r ? error_errno(err, r, "vsock: vhost-vsock refuses cid=%llu",
			       (unsigned long long)vs->cid)
		 : 0;
}

static int configure(struct vsock *vs, const struct device_config *cfg, struct error *err)
{
	enum vhost_mode mode;
	/* 0 to 2 and the largest are reserved (specification 5.10.4). */
	int r = parse_u64(device_config_get(cfg, "cid"), "cid", 3, UINT32_MAX - 1, &vs->cid, err);

	if (!r)
		r = vhost_mode_parse(device_config_get(cfg, "vhost"), &mode, err);
	if (r)
		return r;
	vs->path = device_config_get(cfg, "path");
	if (mode == VHOST_ON || (mode == VHOST_AUTO && !vs->path)) {
		r = open_vhost(vs, err);
		return r && mode == VHOST_AUTO
			       ? error_prefix(err, r, "vsock without path=SOCKET needs vhost-vsock")
			       : r;
	}
	if (!vs->path)
		return error_set(err, -EINVAL, "vsock: vhost=off needs path=SOCKET");
	return conn_listen(vs, err);
}

static int vsock_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
			struct error *err)
{
	struct vsock *vs = calloc(1, sizeof(*vs));
	int r;

	if (!vs)
		return error_errno(err, -ENOMEM, "vsock device");
	TAILQ_INIT(&vs->all);
	TAILQ_INIT(&vs->work);
	vs->listen_fd = vs->vhost.fd = vs->vhost.error_fd = -1;
	vs->virtio.device.vm = vm;
	vs->virtio.cls = &vsock_class;
	vs->virtio.config_size = sizeof(struct virtio_vsock_config);
	vs->virtio.nqueues = VSOCK_QUEUES;
	vs->virtio.queue[VSOCK_RX].max = QUEUE_SIZE;
	vs->virtio.queue[VSOCK_TX].max = QUEUE_SIZE;
	vs->virtio.queue[VSOCK_EVENT].max = EVENT_SIZE;
	r = configure(vs, cfg, err);
	if (!r)
		r = virtio_create(&vs->virtio, vm, &vsock_desc, err);
	if (r) {
		vsock_free(vs);
		return r;
	}
	*ret = &vs->virtio.device;
	return 0;
}

static const struct device_key vsock_keys[] = {
	{"cid", "N", "the guest's address, from 3", true},
	{"path", "SOCKET", "UNIX socket on the host; the guest reaches SOCKET_PORT", false},
	{"vhost", "MODE", "auto: vhost-vsock if there is no path (default); on; off", false},
	{0},
};

const struct device_desc vsock_desc = {
	.name = "vsock",
	.summary = "virtio sockets between guest and host",
	.keys = vsock_keys,
	.max = 1,
	.create = vsock_create,
};
