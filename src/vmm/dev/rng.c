/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device (virtio 1.2, 5.4): fills the guest's buffers by getrandom(2). */

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/devices.h"
#include "vmm/virtio/virtio.h"

#define QUEUE_SIZE 64
#define REQUEST_MAX (64U << 10) /* bytes of one answer; the device may give less than asked */
#define TURN_MAX (64U << 10)	/* bytes before other devices have their turn */
#define REQUEST_COST 64		/* what a request without room counts */

struct rng {
	struct virtio virtio;
	uint64_t bytes;
};

/* Fills the writable part; the number of bytes. */
static uint32_t fill(const struct virtq_chain *chain)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < chain->nwrite && done < REQUEST_MAX; i++) {
		const struct iovec *iov = &chain->iov[chain->nread + i];
		size_t want = iov->iov_len < REQUEST_MAX - done ? iov->iov_len : REQUEST_MAX - done;

		for (size_t at = 0; at < want;) {
			ssize_t n = getrandom((uint8_t *)iov->iov_base + at, want - at, 0);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return done;
			at += (size_t)n;
			done += (uint32_t)n;
		}
	}
	return done;
}

static void rng_kick(struct virtio *dev, struct virtq *q)
{
	struct virtq_chain chain;
	uint32_t cost = 0;

	do {
		virtq_disable_kicks(q);
		while (cost < TURN_MAX && virtq_pop(q, &chain) > 0) {
			uint32_t n = fill(&chain);

			virtq_push(q, &chain, n);
			((struct rng *)dev)->bytes += n;
			cost += n + REQUEST_COST;
		}
	} while (cost < TURN_MAX && virtq_enable_kicks(q));
	if (cost >= TURN_MAX)
		virtq_kick(q);
	virtq_notify(q);
}

static void rng_stats(struct virtio *dev, json_t *object)
{
	json_object_set_new(object, "bytes", json_integer((json_int_t)((struct rng *)dev)->bytes));
}

static void rng_destroy(struct virtio *dev)
{
	free(dev);
}

static const struct virtio_class rng_class = {
	.id = VIRTIO_ID_RNG,
	.name = "rng",
	.pci_class = 0xff0000, /* no class of its own */
	.kick = rng_kick,
	.stats = rng_stats,
	.destroy = rng_destroy,
};

static int rng_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
		      struct error *err)
{
	CLEANUP_FREE struct rng *rng = calloc(1, sizeof(*rng));
	int r;

	if (!rng)
		return error_errno(err, -ENOMEM, "rng");
	rng->virtio.cls = &rng_class;
	rng->virtio.nqueues = 1;
	rng->virtio.queue[0].max = QUEUE_SIZE;
	r = virtio_create(&rng->virtio, vm, &rng_desc, err);
	if (!r)
		*ret = &take_ptr(rng)->virtio.device;
	return r;
}

static const struct device_key rng_keys[] = {{0}};

const struct device_desc rng_desc = {
	.name = "rng",
	.summary = "random numbers of the host",
	.keys = rng_keys,
	.max = 1,
	.create = rng_create,
};
