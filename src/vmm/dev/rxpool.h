/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_RXPOOL_H
#define WISP_VMM_RXPOOL_H

/*
 * Receive buffers taken from a queue ahead of the data, so that one readv() fills several of
 * them in place. Lock: the VM's.
 */

#include "vmm/virtio/virtio.h"

#define RXPOOL_BUFS 64 /* 64 KiB in buffers of one Ethernet frame each fit */
#define RXPOOL_IOVS (VIRTQ_IOV_MAX + RXPOOL_BUFS)

struct rxbuf {
	uint16_t head;
	uint16_t count; /* of its iovs, which follow those of the buffer before it */
	uint32_t bytes;
};

struct rxpool {
	struct virtq *q;
	unsigned nbufs, niov;
	size_t bytes;
	struct rxbuf buf[RXPOOL_BUFS];
	struct iovec iov[RXPOOL_IOVS + 1]; /* one more for the caller's use */
	uint64_t gpa[RXPOOL_IOVS];
};

/*
 * Takes buffers until there are nbufs of them or bytes in them, the queue is empty or the
 * pool is full (returns 0), or the guest broke the rules (-EPROTO; the device is broken). Each
 * has room for at least min bytes. chain is scratch space.
 */
int rxpool_fill(struct rxpool *pool, struct virtq_chain *chain, unsigned nbufs, size_t bytes,
		uint32_t min);

/* rxpool_fill() found no room in the pool although it wanted more. */
bool rxpool_full(const struct rxpool *pool);

/*
 * Gives the first n buffers to the guest at once; written[i] bytes of each were filled (an
 * interrupt is the caller's).
 */
void rxpool_push(struct rxpool *pool, const uint32_t *written, unsigned n);

/* Puts all buffers back to their queue. */
void rxpool_release(struct rxpool *pool);

#endif
