/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split virtqueue (virtio 1.2, 2.7), device side. The guest may write to the rings at any
 * time: every value is read once into a local and checked there.
 */

#include "vmm/virtio/queue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

/* Nothing of a driver says that an indirect table is aligned. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
} __attribute__((packed));

static struct memory *guest_memory(const struct virtq *q)
{
	return &q->dev->device.vm->mem;
}

static bool live(const struct virtq *q)
{
	return q->desc_host && !q->dev->broken;
}

static bool event_idx(const struct virtq *q)
{
	return virtio_has(q->dev, VIRTIO_RING_F_EVENT_IDX);
}

/*
 * Layout of the rings: avail {flags, idx, ring[size], used_event}, 16 bits each;
 * used {flags, idx, ring[size] of {u32 id, u32 len}, avail_event}.
 */
static _Atomic uint16_t *avail_at(const struct virtq *q, unsigned index)
{
	return (_Atomic uint16_t *)q->avail_host + index;
}

static uint16_t avail_idx(const struct virtq *q)
{
	return atomic_load_explicit(avail_at(q, 1), memory_order_acquire);
}

static void used_store(struct virtq *q, size_t offset, uint16_t value)
{
	_Atomic uint16_t *p = (_Atomic uint16_t *)((uint8_t *)q->used_host + offset);

	atomic_store_explicit(p, value, memory_order_release);
	memory_mark_dirty(guest_memory(q), q->used + offset, sizeof(value));
}

static size_t used_entry(const struct virtq *q, uint16_t index)
{
	return offsetof(struct vring_used, ring) +
	       (size_t)(index & (q->size - 1)) * sizeof(struct vring_used_elem);
}

static void *ring_at(const struct virtq *q, const char *what, uint64_t gpa, uint64_t len,
		     unsigned align, struct error *err)
{
	void *host = gpa % align ? NULL : memory_at(guest_memory(q), gpa, len);

	if (!host)
		error_set(err, -EINVAL, "queue %u: %s at 0x%llx is %s", q->index, what,
			  (unsigned long long)gpa, gpa % align ? "misaligned" : "outside RAM");
	return host;
}

int virtq_start(struct virtq *q, struct error *err)
{
	void *desc = ring_at(q, "descriptor table", q->desc, 16ULL * q->size, 16, err);
	void *avail =
		desc ? ring_at(q, "available ring", q->avail, 6 + 2ULL * q->size, 2, err) : NULL;
	void *used = avail ? ring_at(q, "used ring", q->used, 6 + 8ULL * q->size, 4, err) : NULL;

	if (!used)
		return -EINVAL;
	q->desc_host = desc;
	q->avail_host = avail;
	q->used_host = used;
	return 0;
}

void virtq_stop(struct virtq *q)
{
	q->desc_host = q->avail_host = q->used_host = NULL;
}

static int bad(struct virtq *q, const char *what)
{
	virtio_broken(q->dev, "queue %u: %s", q->index, what);
	return -EPROTO;
}

/* Appends one descriptor to the chain. */
static int add_piece(struct virtq *q, struct virtq_chain *chain, const struct desc *d)
{
	unsigned n = chain->nread + chain->nwrite;
	bool write = d->flags & VRING_DESC_F_WRITE;
	uint32_t *bytes = write ? &chain->write_bytes : &chain->read_bytes;
	void *host;

	if (n == VIRTQ_IOV_MAX)
		return bad(q, "a request has too many descriptors");
	if (!write && chain->nwrite)
		return bad(q, "a readable descriptor follows a writable one");
	if (!d->len)
		return bad(q, "a descriptor is empty");
	if ((uint64_t)chain->read_bytes + chain->write_bytes + d->len > UINT32_MAX)
		return bad(q, "a request is longer than 4 GiB");
	host = memory_at(guest_memory(q), d->addr, d->len);
	if (!host)
		return bad(q, "a descriptor points outside RAM");
	chain->iov[n] = (struct iovec){.iov_base = host, .iov_len = d->len};
	chain->gpa[n] = d->addr;
	*bytes += d->len;
	if (write)
		chain->nwrite++;
	else
		chain->nread++;
	return 0;
}

static struct desc read_once(const volatile struct desc *p)
{
	return (struct desc){.addr = p->addr, .len = p->len, .flags = p->flags, .next = p->next};
}

/* The table an indirect descriptor points to; *count is its number of entries. */
static const struct desc *indirect_table(struct virtq *q, const struct desc *d, uint32_t *count)
{
	const struct desc *table;

	if (!virtio_has(q->dev, VIRTIO_RING_F_INDIRECT_DESC) || d->flags & VRING_DESC_F_NEXT ||
	    !d->len || d->len % sizeof(*d)) {
		bad(q, "an indirect descriptor is malformed");
		return NULL;
	}
	table = memory_at(guest_memory(q), d->addr, d->len);
	if (!table)
		bad(q, "an indirect table is outside RAM");
	*count = d->len / (uint32_t)sizeof(*d);
	return table;
}

/*
 * Follows a chain from head. A loop ends at the limit of descriptors: the queue's size in the
 * ring, VIRTQ_IOV_MAX in an indirect table (drivers may chain more there than the ring holds).
 */
static int walk(struct virtq *q, uint16_t head, struct virtq_chain *chain)
{
	const struct desc *table = q->desc_host;
	uint32_t count = q->size, next = head, left = q->size;
	bool indirect = false;
	struct desc d;

	do {
		int r;

		if (next >= count)
			return bad(q, "a descriptor's number is out of range");
		if (!left--)
			return bad(q, "a descriptor chain is longer than its queue");
		d = read_once(&table[next]);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (indirect)
				return bad(q, "an indirect table holds an indirect descriptor");
			table = indirect_table(q, &d, &count);
			if (!table)
				return -EPROTO;
			indirect = true;
			left = VIRTQ_IOV_MAX + 1;
			next = 0;
			d.flags = VRING_DESC_F_NEXT;
			continue;
		}
		r = add_piece(q, chain, &d);
		if (r)
			return r;
		next = d.next;
	} while (d.flags & VRING_DESC_F_NEXT);
	return 0;
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	uint16_t waiting, head;
	int r;

	if (!live(q))
		return q->dev->broken ? -EPROTO : 0;
	waiting = (uint16_t)(avail_idx(q) - q->next_avail);
	if (!waiting)
		return 0;
	if (waiting > q->size)
		return bad(q, "the available index jumped");
	head = atomic_load_explicit(avail_at(q, 2 + (q->next_avail & (q->size - 1u))),
				    memory_order_relaxed);
	chain->head = head;
	chain->nread = chain->nwrite = 0;
	chain->read_bytes = chain->write_bytes = 0;
	r = walk(q, head, chain);
	if (r)
		return r;
	q->next_avail++;
	q->requests++;
	return 1;
}

void virtq_unpop(struct virtq *q, uint16_t n)
{
	q->next_avail -= n;
	q->requests -= n;
}

bool virtq_has_work(struct virtq *q)
{
	return live(q) && avail_idx(q) != q->next_avail;
}

void virtq_disable_kicks(struct virtq *q)
{
	/* With EVENT_IDX an avail_event that lies behind asks for no kick. */
	if (live(q) && !event_idx(q))
		used_store(q, offsetof(struct vring_used, flags), VRING_USED_F_NO_NOTIFY);
}

bool virtq_enable_kicks(struct virtq *q)
{
	if (!live(q))
		return false;
	if (event_idx(q))
		used_store(q, offsetof(struct vring_used, ring) + 8ULL * q->size, q->next_avail);
	else
		used_store(q, offsetof(struct vring_used, flags), 0);
	/* The store must be seen before we look again: the driver does it the other way round. */
	atomic_thread_fence(memory_order_seq_cst);
	return avail_idx(q) != q->next_avail;
}

void virtq_push_many(struct virtq *q, const struct virtq_used *used, unsigned n)
{
	if (!live(q))
		return;
	for (unsigned i = 0; i < n; i++) {
		size_t offset = used_entry(q, (uint16_t)(q->next_used + i));
		struct vring_used_elem *elem = (void *)((uint8_t *)q->used_host + offset);

		elem->id = used[i].head;
		elem->len = used[i].written;
		memory_mark_dirty(guest_memory(q), q->used + offset, sizeof(*elem));
	}
	q->next_used = (uint16_t)(q->next_used + n);
	used_store(q, offsetof(struct vring_used, idx), q->next_used);
}

void virtq_push_id(struct virtq *q, uint16_t head, uint32_t written)
{
	virtq_push_many(q, &(struct virtq_used){.head = head, .written = written}, 1);
}

void virtq_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written)
{
	uint32_t left = written;

	for (unsigned i = chain->nread; left && i < chain->nread + chain->nwrite; i++) {
		uint32_t n = (uint32_t)chain->iov[i].iov_len;

		if (n > left)
			n = left;
		memory_mark_dirty(guest_memory(q), chain->gpa[i], n);
		left -= n;
	}
	virtq_push_id(q, chain->head, written);
}

void virtq_notify(struct virtq *q)
{
	uint16_t old = q->signalled;
	bool wanted;

	if (!live(q) || q->next_used == old)
		return;
	q->signalled = q->next_used;
	/* Our index must be seen before we read what the driver asks for. */
	atomic_thread_fence(memory_order_seq_cst);
	if (event_idx(q))
		wanted = vring_need_event(*avail_at(q, 2u + q->size), q->next_used, old);
	else
		wanted = !(*avail_at(q, 0) & VRING_AVAIL_F_NO_INTERRUPT);
	if (!wanted)
		return;
	q->interrupts++;
	virtio_interrupt(q);
}

/* Copies between a buffer and pieces from a byte offset on; number of bytes copied. */
static size_t copy(const struct iovec *iov, unsigned n, size_t offset, uint8_t *buf, size_t len,
		   bool to_guest)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part = iov[i].iov_len;
		uint8_t *host = iov[i].iov_base;

		if (offset >= part) {
			offset -= part;
			continue;
		}
		part -= offset;
		if (part > len - done)
			part = len - done;
		if (to_guest)
			memcpy(host + offset, buf + done, part);
		else
			memcpy(buf + done, host + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *buf, size_t len)
{
	return copy(chain->iov, chain->nread, offset, buf, len, false);
}

size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *buf,
			 size_t len)
{
	/* The cast only drops const: this direction reads the buffer. */
	return copy(chain->iov + chain->nread, chain->nwrite, offset, (uint8_t *)buf, len, true);
}
