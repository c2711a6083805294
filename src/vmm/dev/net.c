/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio network device (specification 5.1) on a tap, served by vhost-net when the host
 * has it, else by net-tap.c: configuration, features, control queue, choice of the data path.
 */

#include "vmm/dev/net.h"

#include <endian.h>
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_ids.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/parse.h"
#include "vmm/devices.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 256
#define CONTROL_SIZE 64
#define BIT(feature) (1ULL << VIRTIO_NET_F_##feature)

static struct net *net_of(struct virtio *dev)
{
	return (struct net *)dev;
}

static uint64_t net_features(struct virtio *dev)
{
	struct net *net = net_of(dev);
	uint64_t features = BIT(CSUM) | BIT(GUEST_CSUM) | BIT(HOST_TSO4) | BIT(HOST_TSO6) |
			    BIT(HOST_ECN) | BIT(GUEST_TSO4) | BIT(GUEST_TSO6) | BIT(GUEST_ECN) |
			    BIT(MAC) | BIT(STATUS) | BIT(MRG_RXBUF) | BIT(CTRL_VQ) |
			    BIT(GUEST_ANNOUNCE);

	if (net->vhost.fd >= 0 && !(net->vhost.features & BIT(MRG_RXBUF)))
		features &= ~BIT(MRG_RXBUF);
	return features | (net->mtu ? BIT(MTU) : 0);
}

#define CONFIG_SIZE (offsetof(struct virtio_net_config, mtu) + 2)

static void net_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	struct net *net = net_of(dev);
	struct virtio_net_config config = {
		.status = htole16(net->status),
		.max_virtqueue_pairs = htole16(1),
		.mtu = htole16(net->mtu),
	};

	memcpy(config.mac, net->mac, sizeof(net->mac));
	memcpy(data, (char *)&config + offset, len);
}

static int set_backend(struct net *net, unsigned queue, int fd)
{
	struct vhost_vring_file file = {.index = queue, .fd = fd};

	return vhost_call(&net->vhost, VHOST_NET_SET_BACKEND, &file);
}

static void kernel_stop(struct net *net)
{
	if (!net->vhost.running)
		return;
	set_backend(net, NET_RX, VHOST_FILE_UNBIND);
	set_backend(net, NET_TX, VHOST_FILE_UNBIND);
	vhost_stop(&net->vhost);
}

static int kernel_start(struct net *net, struct error *err)
{
	int r = vhost_start(&net->vhost, &net->virtio, NET_CONTROL, err);

	if (r)
		return r;
	r = set_backend(net, NET_RX, net->tap);
	if (!r)
		r = set_backend(net, NET_TX, net->tap);
	if (!r)
		return 0;
	kernel_stop(net);
	return error_errno(err, r, "%s: vhost-net refused the tap", net->virtio.device.id);
}

static int start(struct net *net, struct error *err)
{
	struct error why;
	int r = net_tap_claim(net, err);

	if (r || net->vhost.fd < 0)
		return r ? r : net_tap_start(net, err);
	r = kernel_start(net, net->vhost_required ? err : &why);
	if (!r || net->vhost_required)
		return r;
	log_warn(&net->virtio.device.vm->log, "net", "frames go through this process: %s",
		 why.text);
	vhost_close(&net->vhost);
	return net_tap_start(net, err);
}

static void stop(struct net *net)
{
	kernel_stop(net);
	net_tap_stop(net);
}

static int net_activate(struct virtio *dev, struct error *err)
{
	struct net *net = net_of(dev);
	int r = net_tap_offload(net, err);

	return r ? r : start(net, err);
}

static void net_deactivate(struct virtio *dev)
{
	struct net *net = net_of(dev);

	net_announce_stop(net);
	stop(net);
	net->status = VIRTIO_NET_S_LINK_UP;
}

static int net_pause(struct virtio *dev)
{
	net_announce_stop(net_of(dev));
	stop(net_of(dev));
	return 0;
}

static void net_resume(struct virtio *dev)
{
	struct error err;

	if (start(net_of(dev), &err))
		virtio_broken(dev, "%s", err.text);
	else
		net_announce_start(net_of(dev));
}

/* The VM may be on another host now: we and the guest tell the switches where it is. */
static void net_restored(struct virtio *dev)
{
	net_announce_plan(net_of(dev));
	if (!virtio_has(dev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return;
	net_of(dev)->status |= VIRTIO_NET_S_ANNOUNCE;
	virtio_config_changed(dev);
}

/* One command of the control queue (5.1.6.5): the only one we offer acknowledges ANNOUNCE. */
static uint8_t control(struct net *net, const struct virtq_chain *c)
{
	struct virtio_net_ctrl_hdr hdr;

	if (virtq_chain_read(c, 0, &hdr, sizeof(hdr)) != sizeof(hdr) ||
	    hdr.class != VIRTIO_NET_CTRL_ANNOUNCE || hdr.cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
	    !virtio_has(&net->virtio, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return VIRTIO_NET_ERR;
	net->status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
	return VIRTIO_NET_OK;
}

static void control_kick(struct net *net, struct virtq *q)
{
	unsigned budget = q->size; /* what a driver that waits for answers can have asked */

	do {
		virtq_disable_kicks(q);
		for (; budget && virtq_pop(q, &net->chain) > 0; budget--) {
			uint8_t ack = control(net, &net->chain);

			if (!virtq_chain_write(&net->chain, 0, &ack, 1)) {
				virtio_broken(&net->virtio, "control command without room for "
							    "its answer");
				return;
			}
			virtq_push(q, &net->chain, 1);
		}
	} while (budget && virtq_enable_kicks(q));
	if (!budget)
		virtq_kick(q); /* the rest after other devices had a turn */
	virtq_notify(q);
}

static void net_kick(struct virtio *dev, struct virtq *q)
{
	struct net *net = net_of(dev);

	if (q->index == NET_CONTROL)
		control_kick(net, q);
	else
		net_tap_kick(net, q);
}

static void net_log_dirty(struct virtio *dev)
{
	vhost_log_dirty(&net_of(dev)->vhost);
}

static void net_stats(struct virtio *dev, json_t *object)
{
	struct net *net = net_of(dev);

	json_object_set_new(object, "vhost", json_boolean(net->vhost.fd >= 0));
	if (net->vhost.fd >= 0)
		return; /* the kernel counts at the tap */
	json_object_set_new(object, "rx-frames", json_integer((json_int_t)net->rx_frames));
	json_object_set_new(object, "rx-bytes", json_integer((json_int_t)net->rx_bytes));
	json_object_set_new(object, "rx-dropped", json_integer((json_int_t)net->rx_dropped));
	json_object_set_new(object, "tx-frames", json_integer((json_int_t)net->tx_frames));
	json_object_set_new(object, "tx-bytes", json_integer((json_int_t)net->tx_bytes));
	json_object_set_new(object, "tx-dropped", json_integer((json_int_t)net->tx_dropped));
}

static void net_free(struct net *net)
{
	loop_remove(&net->announce_timer);
	loop_remove(&net->tap_source);
	vhost_close(&net->vhost);
	if (net->tap >= 0)
		close(net->tap);
	free(net->overflow);
	free(net);
}

static void net_destroy(struct virtio *dev)
{
	net_free(net_of(dev));
}

static const struct state_field net_state[] = {
	STATE_ARRAY(struct net, mac),
	STATE_FIELD(struct net, mtu),
	STATE_FIELD(struct net, status),
	STATE_END,
};

static const struct virtio_class net_class = {
	.id = VIRTIO_ID_NET,
	.name = "net",
	.pci_class = 0x020000, /* Ethernet */
	.features = net_features,
	.config_read = net_config_read,
	.activate = net_activate,
	.restored = net_restored,
	.deactivate = net_deactivate,
	.kick = net_kick,
	.pause = net_pause,
	.resume = net_resume,
	.log_dirty = net_log_dirty,
	.stats = net_stats,
	.destroy = net_destroy,
	.state = net_state,
};

/* A random address, locally administered, when the configuration has none. */
static int set_mac(struct net *net, const char *mac, struct error *err)
{
	if (mac)
		return parse_mac(mac, net->mac, err);
	if (getrandom(net->mac, sizeof(net->mac), 0) != sizeof(net->mac))
		return error_errno(err, -errno, "net: no random MAC address");
	net->mac[0] = (net->mac[0] & 0xfc) | 0x02;
	return 0;
}

static int open_tap(struct net *net, const struct device_config *cfg, struct error *err)
{
	const char *tap = device_config_get(cfg, "tap"), *fd = device_config_get(cfg, "fd");
	unsigned number;
	int r;

	if (!tap == !fd)
		return error_set(err, -EINVAL, "net: give one of tap=NAME and fd=NUMBER");
	if (fd) {
		r = parse_uint(fd, "fd", 0, INT_MAX, &number, err);
		if (!r)
			r = net_tap_adopt((int)number, err);
	} else {
		r = net_tap_open(tap, err);
	}
	if (r < 0)
		return r;
	net->tap = r;
	return 0;
}

static int open_vhost(struct net *net, struct vm *vm, const char *text, struct error *err)
{
	enum vhost_mode mode;
	struct error why;
	int r = vhost_mode_parse(text, &mode, err);

	if (r || mode == VHOST_OFF)
		return r;
	net->vhost_required = mode == VHOST_ON;
	r = vhost_open(&net->vhost, "net", net->vhost_required ? err : &why);
	if (!r || net->vhost_required)
		return r;
	log_info(&vm->log, "net", "frames go through this process: %s", why.text);
	return 0;
}

static int configure(struct net *net, struct vm *vm, const struct device_config *cfg,
		     struct error *err)
{
	const char *mtu = device_config_get(cfg, "mtu");
	unsigned value = 0;
	int r = set_mac(net, device_config_get(cfg, "mac"), err);

	if (!r && mtu) /* 68 is IPv4's smallest (specification 5.1.4.1) */
		r = parse_uint(mtu, "mtu", 68, 65535, &value, err);
	net->mtu = (uint16_t)value;
	if (!r)
		r = open_tap(net, cfg, err);
	if (!r)
		r = open_vhost(net, vm, device_config_get(cfg, "vhost"), err);
	return r;
}

static int net_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
		      struct error *err)
{
	struct net *net = calloc(1, sizeof(*net));
	int r;

	if (!net)
		return error_errno(err, -ENOMEM, "network device");
	net->tap = net->vhost.fd = net->vhost.error_fd = -1;
	net->status = VIRTIO_NET_S_LINK_UP;
	net->virtio.cls = &net_class;
	net->virtio.config_size = CONFIG_SIZE;
	net->virtio.nqueues = NET_QUEUES;
	net->virtio.queue[NET_RX].max = QUEUE_SIZE;
	net->virtio.queue[NET_TX].max = QUEUE_SIZE;
	net->virtio.queue[NET_CONTROL].max = CONTROL_SIZE;
	r = configure(net, vm, cfg, err);
	if (!r)
		r = virtio_create(&net->virtio, vm, &net_desc, err);
	if (r) {
		net_free(net);
		return r;
	}
	*ret = &net->virtio.device;
	return 0;
}

static const struct device_key net_keys[] = {
	{"tap", "NAME", "an existing tap interface", false},
	{"fd", "NUMBER", "an inherited open tap, instead of tap=", false},
	{"mac", "ADDRESS", "MAC address of the guest's interface (default: random)", false},
	{"vhost", "MODE", "auto: vhost-net when the host has it (default); on; off", false},
	{"mtu", "N", "MTU the guest is told, 68 to 65535", false},
	{0},
};

const struct device_desc net_desc = {
	.name = "net",
	.summary = "virtio network interface on a tap",
	.keys = net_keys,
	.max = 8,
	.create = net_create,
};
