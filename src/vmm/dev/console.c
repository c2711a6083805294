/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console device (virtio 1.2, 5.3) with one port, hvc0 in Linux. Output that nobody reads
 * is dropped; input waits in the back end until the driver has given buffers for it.
 */

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/chardev.h"
#include "vmm/devices.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 64
#define REQUEST_MAX (64U << 10) /* bytes of one request that are shown; Linux sends 4 KiB */
#define TURN_MAX (64U << 10)	/* bytes before other devices have their turn */
#define REQUEST_COST 64		/* what an empty request counts */

enum { QUEUE_RX, QUEUE_TX, QUEUES };

struct console {
	struct virtio virtio;
	struct chardev *chardev;
	uint8_t input[256]; /* taken from the back end, not yet in the guest */
	uint32_t ninput;
	uint64_t bytes_in, bytes_out;
};

static struct console *console_of(struct virtio *dev)
{
	return (struct console *)dev;
}

static void console_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	/* All fields belong to features that we do not offer. */
	memset(data, 0, len);
}

/* Gives waiting input to the guest as far as it has buffers. */
static void flush_input(struct console *c)
{
	struct virtq *q = &c->virtio.queue[QUEUE_RX];
	struct virtq_chain chain;

	virtq_disable_kicks(q);
	for (unsigned i = 0; c->ninput && i < q->size && virtq_pop(q, &chain) > 0; i++) {
		uint32_t n = (uint32_t)virtq_chain_write(&chain, 0, c->input, c->ninput);

		virtq_push(q, &chain, n);
		c->ninput -= n;
		c->bytes_in += n;
		memmove(c->input, c->input + n, c->ninput);
	}
	virtq_notify(q);
	if (c->ninput && virtq_enable_kicks(q))
		virtq_kick(q);
	if (c->ninput < sizeof(c->input))
		chardev_input_ready(c->chardev);
}

static size_t console_room(void *arg)
{
	struct console *c = arg;
	bool running = c->virtio.active && !c->virtio.paused && !c->virtio.broken;

	return running ? sizeof(c->input) - c->ninput : 0;
}

static void console_input(void *arg, const uint8_t *data, size_t len)
{
	struct console *c = arg;

	memcpy(c->input + c->ninput, data, len);
	c->ninput += (uint32_t)len;
	flush_input(c);
}

static const struct chardev_ops console_ops = {.room = console_room, .input = console_input};

static uint32_t show(struct console *c, const struct virtq_chain *chain)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < chain->nread && done < REQUEST_MAX; i++) {
		size_t n = chain->iov[i].iov_len;

		if (n > REQUEST_MAX - done)
			n = REQUEST_MAX - done;
		chardev_output(c->chardev, chain->iov[i].iov_base, n);
		done += (uint32_t)n;
	}
	return done;
}

static void serve_output(struct console *c, struct virtq *q)
{
	struct virtq_chain chain;
	uint32_t cost = 0;

	do {
		virtq_disable_kicks(q);
		while (cost < TURN_MAX && virtq_pop(q, &chain) > 0) {
			uint32_t n = show(c, &chain);

			virtq_push(q, &chain, 0);
			c->bytes_out += n;
			cost += n + REQUEST_COST;
		}
	} while (cost < TURN_MAX && virtq_enable_kicks(q));
	if (cost >= TURN_MAX)
		virtq_kick(q);
	virtq_notify(q);
}

static void console_kick(struct virtio *dev, struct virtq *q)
{
	if (q->index == QUEUE_TX)
		serve_output(console_of(dev), q);
	else
		flush_input(console_of(dev));
}

static int console_activate(struct virtio *dev, struct error *err)
{
	struct console *c = console_of(dev);

	if (c->ninput > sizeof(c->input)) /* saved state comes from a file */
		return error_set(err, -EINVAL, "%u bytes of input are too many", c->ninput);
	chardev_input_ready(c->chardev);
	return 0;
}

static void console_resume(struct virtio *dev)
{
	flush_input(console_of(dev));
}

static void console_stats(struct virtio *dev, json_t *object)
{
	const struct console *c = console_of(dev);

	json_object_set_new(object, "bytes_in", json_integer((json_int_t)c->bytes_in));
	json_object_set_new(object, "bytes_out", json_integer((json_int_t)c->bytes_out));
}

static void console_destroy(struct virtio *dev)
{
	chardev_destroy(console_of(dev)->chardev);
	free(dev);
}

static const struct state_field console_state[] = {
	STATE_ARRAY(struct console, input),
	STATE_FIELD(struct console, ninput),
	STATE_END,
};

static const struct virtio_class console_class = {
	.id = VIRTIO_ID_CONSOLE,
	.name = "console",
	.pci_class = 0x078000, /* communication controller, other */
	.config_read = console_config_read,
	.activate = console_activate,
	.kick = console_kick,
	.resume = console_resume,
	.stats = console_stats,
	.destroy = console_destroy,
	.state = console_state,
};

/* The chardev's spec ("socket=PATH"...) from the device's keys; NULL when out of memory. */
static char *make_spec(const struct device_config *cfg)
{
	const char *socket = device_config_get(cfg, "socket");
	const char *file = device_config_get(cfg, "file");

	if (socket)
		return io_format("socket=%s", socket);
	return file ? io_format("file=%s", file) : strdup("stdio");
}

static int check_keys(const struct device_config *cfg, struct error *err)
{
	unsigned n = !!device_config_get(cfg, "socket") + !!device_config_get(cfg, "file") +
		     !!device_config_get(cfg, "stdio");

	return n == 1 ? 0 : error_set(err, -EINVAL, "give one of socket=PATH, file=PATH and stdio");
}

static int console_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
			  struct error *err)
{
	CLEANUP_FREE struct console *c = calloc(1, sizeof(*c));
	CLEANUP_FREE char *spec = make_spec(cfg);
	int r = check_keys(cfg, err);

	if (r)
		return r;
	if (!c || !spec)
		return error_errno(err, -ENOMEM, "console");
	c->virtio.cls = &console_class;
	c->virtio.nqueues = QUEUES;
	c->virtio.config_size = sizeof(struct virtio_console_config);
	c->virtio.queue[QUEUE_RX].max = c->virtio.queue[QUEUE_TX].max = QUEUE_SIZE;
	r = chardev_create(spec, vm->loop, &console_ops, c, &c->chardev, err);
	if (r)
		return r;
	r = virtio_create(&c->virtio, vm, &console_desc, err);
	if (r) {
		chardev_destroy(c->chardev);
		return r;
	}
	*ret = &take_ptr(c)->virtio.device;
	return 0;
}

static const struct device_key console_keys[] = {
	{"socket", "PATH", "UNIX socket that one client at a time may use", false},
	{"file", "PATH", "append output to a file", false},
	{"stdio", NULL, "standard input and output", false},
	{0},
};

const struct device_desc console_desc = {
	.name = "console",
	.summary = "virtio console (hvc0 in Linux)",
	.keys = console_keys,
	.max = 1,
	.create = console_create,
};
