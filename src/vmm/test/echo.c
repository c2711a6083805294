/* SPDX-License-Identifier: Apache-2.0 */
/* The echo device. */

#include "vmm/test/echo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/test/guest-driver.h"

static struct echo *echo_of(struct virtio *dev)
{
	return (struct echo *)dev;
}

static uint64_t echo_features(struct virtio *dev)
{
	return ECHO_FEATURES;
}

static void echo_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	memcpy(data, echo_of(dev)->config + offset, len);
}

static void echo_config_write(struct virtio *dev, unsigned offset, const void *data, unsigned len)
{
	memcpy(echo_of(dev)->config + offset, data, len);
}

static int echo_activate(struct virtio *dev, struct error *err)
{
	if (echo_of(dev)->fail_activate)
		return error_set(err, -EIO, "told to fail");
	echo_of(dev)->activations++;
	return 0;
}

static void echo_deactivate(struct virtio *dev)
{
	echo_of(dev)->deactivations++;
}

/* What the rings promise of a request, whatever the guest wrote there. */
static void check_chain(const struct memory *mem, const struct virtq_chain *chain)
{
	uint64_t bytes[2] = {0};
	unsigned n = chain->nread + chain->nwrite;

	guest_require(n && n <= VIRTQ_IOV_MAX);
	for (unsigned i = 0; i < n; i++) {
		const struct iovec *iov = &chain->iov[i];

		guest_require(iov->iov_len);
		guest_require(iov->iov_base == memory_at(mem, chain->gpa[i], iov->iov_len));
		bytes[i >= chain->nread] += iov->iov_len;
	}
	guest_require(bytes[0] == chain->read_bytes && bytes[1] == chain->write_bytes);
	guest_require(bytes[0] + bytes[1] <= UINT32_MAX);
}

static uint32_t answer(struct virtq_chain *chain)
{
	uint8_t buf[512];
	size_t done = 0, n;

	do {
		n = virtq_chain_read(chain, done, buf, sizeof(buf));
		n = virtq_chain_write(chain, done, buf, n);
		done += n;
	} while (n && done < ECHO_MAX);
	return (uint32_t)done;
}

static void serve_one(struct echo *echo, struct virtq *q)
{
	check_chain(&echo->virtio.device.vm->mem, &echo->chain);
	virtq_push(q, &echo->chain, answer(&echo->chain));
}

int echo_serve(struct echo *echo, struct virtq *q)
{
	int n = 0, r;

	do {
		virtq_disable_kicks(q);
		/* A hostile ring may never be empty. */
		while ((r = virtq_pop(q, &echo->chain)) > 0 && ++n < 2 * VIRTQ_SIZE_MAX)
			serve_one(echo, q);
	} while (virtq_enable_kicks(q) && n < 2 * VIRTQ_SIZE_MAX);
	virtq_notify(q);
	return r < 0 ? r : n;
}

static void echo_kick(struct virtio *dev, struct virtq *q)
{
	echo_of(dev)->kicks++;
	if (q->index == 0)
		echo_serve(echo_of(dev), q);
}

static int echo_pause(struct virtio *dev)
{
	echo_of(dev)->pauses++;
	return 0;
}

static void echo_resume(struct virtio *dev)
{
	echo_of(dev)->resumes++;
}

static void echo_restored(struct virtio *dev)
{
	echo_of(dev)->restores++;
}

static void echo_destroy(struct virtio *dev)
{
	free(dev);
}

static const struct state_field echo_state[] = {
	STATE_ARRAY(struct echo, config),
	STATE_ARRAY(struct echo, counter),
	STATE_END,
};

static const struct virtio_class echo_class = {
	.id = ECHO_ID,
	.name = "echo",
	.pci_class = 0xff0000,
	.features = echo_features,
	.config_read = echo_config_read,
	.config_write = echo_config_write,
	.activate = echo_activate,
	.restored = echo_restored,
	.deactivate = echo_deactivate,
	.kick = echo_kick,
	.pause = echo_pause,
	.resume = echo_resume,
	.destroy = echo_destroy,
	.state = echo_state,
};

static const struct device_desc echo_desc = {.name = "echo", .summary = "test device", .max = 32};

struct echo *echo_create(struct vm *vm)
{
	struct echo *echo = calloc(1, sizeof(*echo));
	struct error err;

	guest_require(echo);
	echo->virtio.cls = &echo_class;
	echo->virtio.nqueues = 2;
	echo->virtio.config_size = sizeof(echo->config);
	echo->virtio.queue[0].max = ECHO_QUEUE_SIZE;
	echo->virtio.queue[1].max = ECHO_QUEUE_SIZE / 2;
	guest_require(!virtio_create(&echo->virtio, vm, &echo_desc, &err));
	return echo;
}
