/* SPDX-License-Identifier: Apache-2.0 */
/* Receive buffers taken from a queue ahead of the data that will fill them. */

#include "vmm/dev/rxpool.h"

#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

bool rxpool_full(const struct rxpool *pool)
{
	return pool->nbufs == RXPOOL_BUFS || pool->niov + VIRTQ_IOV_MAX > RXPOOL_IOVS;
}

static int add(struct rxpool *pool, const struct virtq_chain *chain, uint32_t min)
{
	if (chain->nread || chain->write_bytes < min) {
		virtio_broken(pool->q->dev, "queue %u: a receive buffer of %u writable bytes",
			      pool->q->index, chain->write_bytes);
		return -EPROTO;
	}
	pool->buf[pool->nbufs++] = (struct rxbuf){chain->head, chain->nwrite, chain->write_bytes};
	memcpy(&pool->iov[pool->niov], chain->iov, chain->nwrite * sizeof(chain->iov[0]));
	memcpy(&pool->gpa[pool->niov], chain->gpa, chain->nwrite * sizeof(chain->gpa[0]));
	pool->niov += chain->nwrite;
	pool->bytes += chain->write_bytes;
	return 0;
}

int rxpool_fill(struct rxpool *pool, struct virtq_chain *chain, unsigned nbufs, size_t bytes,
		uint32_t min)
{
	while (pool->nbufs < nbufs && pool->bytes < bytes && !rxpool_full(pool)) {
		int r = virtq_pop(pool->q, chain);

		if (r > 0)
			r = add(pool, chain, min);
		else if (!r)
			return 0;
		if (r)
			return r;
	}
	return 0;
}

static void mark_dirty(struct rxpool *pool, unsigned first, uint32_t written)
{
	struct memory *mem = &pool->q->dev->device.vm->mem;

	for (; written; first++) {
		uint32_t part = (uint32_t)pool->iov[first].iov_len;

		if (part > written)
			part = written;
		memory_mark_dirty(mem, pool->gpa[first], part);
		written -= part;
	}
}

static void drop_front(struct rxpool *pool, unsigned nbufs, unsigned niov, size_t bytes)
{
	pool->nbufs -= nbufs;
	pool->niov -= niov;
	pool->bytes -= bytes;
	memmove(pool->buf, pool->buf + nbufs, pool->nbufs * sizeof(pool->buf[0]));
	memmove(pool->iov, pool->iov + niov, pool->niov * sizeof(pool->iov[0]));
	memmove(pool->gpa, pool->gpa + niov, pool->niov * sizeof(pool->gpa[0]));
}

void rxpool_push(struct rxpool *pool, const uint32_t *written, unsigned n)
{
	struct virtq_used used[RXPOOL_BUFS];
	unsigned niov = 0;
	size_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		mark_dirty(pool, niov, written[i]);
		used[i] = (struct virtq_used){pool->buf[i].head, written[i]};
		niov += pool->buf[i].count;
		bytes += pool->buf[i].bytes;
	}
	virtq_push_many(pool->q, used, n);
	drop_front(pool, n, niov, bytes);
}

void rxpool_release(struct rxpool *pool)
{
	virtq_unpop(pool->q, (uint16_t)pool->nbufs);
	pool->nbufs = pool->niov = 0;
	pool->bytes = 0;
}
