/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets of the vsock device (specification 5.10.6): dispatches those of the guest to
 * their connections, and sends ours into its receive buffers, one read of a socket filling
 * many of them.
 *
 * What is to be sent waits in bounded places: as flags of its connection, or in a small array
 * of resets for packets that belong to none; when that is full the guest's packets wait.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "lib/log.h"
#include "vmm/dev/iov.h"
#include "vmm/dev/vsock.h"
#include "vmm/vm.h"

/* Packets of the guest handled before other devices get their turn. */
#define BATCH 128
/* One read of a socket: bytes, and buffers of 4 KiB they fill. */
#define READ_BYTES (64u << 10)
#define READ_BUFS 32

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
	return (guest_port * 2654435761u ^ host_port * 2246822519u) >> 16 & (VSOCK_BUCKETS - 1);
}

struct conn *vsock_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port)
{
	struct conn *c;

	LIST_FOREACH(c, &vs->bucket[bucket_of(guest_port, host_port)], bucket)
	{
		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	}
	return NULL;
}

void vsock_add(struct conn *c)
{
	LIST_INSERT_HEAD(&c->vs->bucket[bucket_of(c->guest_port, c->host_port)], c, bucket);
	c->hashed = true;
}

void vsock_forget(struct conn *c)
{
	if (c->hashed)
		LIST_REMOVE(c, bucket);
	c->hashed = false;
}

void vsock_want_work(struct conn *c)
{
	if (!c->working)
		TAILQ_INSERT_TAIL(&c->vs->work, c, work);
	c->working = true;
}

/* The guest must kick when it adds receive buffers. True when there are some now. */
static bool starved(struct vsock *vs)
{
	if (virtq_enable_kicks(vs->rx.q)) {
		virtq_disable_kicks(vs->rx.q);
		return false;
	}
	vs->starved = true;
	return true;
}

/* Makes sure that there are buffers, up to nbufs. False: there are none. */
static bool fill(struct vsock *vs, unsigned nbufs)
{
	do {
		if (rxpool_fill(&vs->rx, &vs->chain, nbufs, READ_BYTES + nbufs * VSOCK_HEADER,
				VSOCK_HEADER + 1)) {
			vs->starved = true; /* the device is broken */
			return false;
		}
	} while (!vs->rx.nbufs && !starved(vs));
	return vs->rx.nbufs;
}

static struct virtio_vsock_hdr header(struct vsock *vs, uint32_t guest_port, uint32_t host_port,
				      uint16_t op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_HOST_CID),
		.dst_cid = htole64(vs->cid),
		.src_port = htole32(host_port),
		.dst_port = htole32(guest_port),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
	};
}

/* Header of a connection's packet; it carries our credit. */
static struct virtio_vsock_hdr conn_header(struct conn *c, uint16_t op)
{
	struct virtio_vsock_hdr hdr = header(c->vs, c->guest_port, c->host_port, op);

	hdr.buf_alloc = htole32(VSOCK_BUFFER);
	hdr.fwd_cnt = htole32(c->forwarded);
	c->told_forwarded = c->forwarded;
	c->send &= ~SEND_CREDIT_UPDATE;
	return hdr;
}

/* Sends a packet without data; there is a buffer. */
static void put(struct vsock *vs, const struct virtio_vsock_hdr *hdr)
{
	uint32_t written = VSOCK_HEADER;

	iov_write(vs->rx.iov, vs->rx.niov, 0, hdr, VSOCK_HEADER);
	rxpool_push(&vs->rx, &written, 1);
}

static bool send_op(struct conn *c, uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr hdr;

	if (!fill(c->vs, 1))
		return false;
	hdr = conn_header(c, op);
	hdr.flags = htole32(flags);
	put(c->vs, &hdr);
	return true;
}

/* Puts headers around len bytes that are in the pool's buffers and hands them out. */
static void deliver(struct conn *c, uint32_t len)
{
	struct rxpool *rx = &c->vs->rx;
	struct virtio_vsock_hdr hdr = conn_header(c, VIRTIO_VSOCK_OP_RW);
	uint32_t written[RXPOOL_BUFS];
	unsigned n = 0, first = 0;

	c->sent += len;
	c->vs->to_guest += len;
	while (len) {
		uint32_t part = rx->buf[n].bytes - (uint32_t)VSOCK_HEADER;

		if (part > len)
			part = len;
		hdr.len = htole32(part);
		iov_write(&rx->iov[first], rx->buf[n].count, 0, &hdr, VSOCK_HEADER);
		written[n] = part + (uint32_t)VSOCK_HEADER;
		first += rx->buf[n++].count;
		len -= part;
	}
	rxpool_push(rx, written, n);
}

/* The room behind the headers of the pool's buffers, at most len bytes. */
static unsigned data_iov(const struct rxpool *rx, size_t len, struct iovec *iov)
{
	unsigned count = 0, first = 0;

	for (unsigned i = 0; i < rx->nbufs && len; i++) {
		size_t part = rx->buf[i].bytes - VSOCK_HEADER;

		if (part > len)
			part = len;
		count += iov_slice(&rx->iov[first], rx->buf[i].count, VSOCK_HEADER, part,
				   &iov[count]);
		first += rx->buf[i].count;
		len -= part;
	}
	return count;
}

static bool readable(const struct conn *c)
{
	return c->state == CONN_OPEN && c->fd >= 0 &&
	       !(c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Moves one batch from the socket to the guest. False: the guest has no buffers. */
static bool read_socket(struct conn *c)
{
	struct iovec iov[RXPOOL_IOVS];
	uint32_t want = conn_credit(c);
	ssize_t n;

	if (!want) { /* conn_credited() goes on */
		if (!c->asked_credit)
			c->send |= SEND_CREDIT_REQUEST;
		c->want_read = false;
		conn_watch(c, EPOLLIN, false);
		return true;
	}
	if (!fill(c->vs, READ_BUFS)) {
		conn_watch(c, EPOLLIN, false);
		return false;
	}
	if (want > READ_BYTES)
		want = READ_BYTES;
	n = readv(c->fd, iov, (int)data_iov(&c->vs->rx, want, iov));
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->want_read = false;
		conn_watch(c, EPOLLIN, true);
		return true;
	}
	if (n <= 0) {
		conn_host_ended(c);
		return true;
	}
	deliver(c, (uint32_t)n);
	c->want_read = c->hung_up; /* else the loop tells when there is more */
	conn_watch(c, EPOLLIN, true);
	return true;
}

/* The reset of a connection that still has data for the host. */
static bool send_last(struct conn *c)
{
	if (c->send & SEND_RESET && !send_op(c, VIRTIO_VSOCK_OP_RST, 0))
		return false;
	c->send = 0;
	vsock_forget(c);
	return true;
}

/* Sends what the connection has to say. False: the guest has no buffers. */
static bool conn_work(struct conn *c)
{
	static const struct {
		unsigned bit;
		uint16_t op;
	} control[] = {
		{SEND_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{SEND_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{SEND_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		{SEND_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
	};

	if (c->state == CONN_DEAD)
		return send_op(c, VIRTIO_VSOCK_OP_RST, 0);
	if (c->state == CONN_LINGER)
		return send_last(c);
	/* The answer to a request goes before any data. */
	if (c->want_read && !(c->send & (SEND_REQUEST | SEND_RESPONSE)) && readable(c) &&
	    !read_socket(c))
		return false;
	for (unsigned i = 0; i < sizeof(control) / sizeof(control[0]); i++) {
		if (!(c->send & control[i].bit))
			continue;
		if (!send_op(c, control[i].op, 0))
			return false;
		c->send &= ~control[i].bit;
		c->asked_credit |= control[i].bit == SEND_CREDIT_REQUEST;
	}
	if (c->state == CONN_OPEN && c->host_shut != c->told_shut) {
		if (!send_op(c, VIRTIO_VSOCK_OP_SHUTDOWN, c->host_shut))
			return false;
		c->told_shut = c->host_shut;
	}
	return true;
}

static bool send_resets(struct vsock *vs)
{
	while (vs->nresets && fill(vs, 1)) {
		struct vsock_reset *r = &vs->reset[--vs->nresets];
		struct virtio_vsock_hdr hdr =
			header(vs, r->guest_port, r->host_port, VIRTIO_VSOCK_OP_RST);

		put(vs, &hdr);
	}
	return !vs->nresets;
}

void vsock_work(struct vsock *vs)
{
	struct conn *c;

	if (!vs->running || vs->starved || vs->reset_event || vs->reset_told)
		return;
	if (send_resets(vs)) {
		while ((c = TAILQ_FIRST(&vs->work)) && conn_work(c)) {
			TAILQ_REMOVE(&vs->work, c, work);
			c->working = false;
			if (c->state == CONN_DEAD)
				conn_free(c);
			else if (c->want_read && readable(c))
				vsock_want_work(c); /* behind the others */
		}
	}
	virtq_notify(vs->rx.q);
	if (vs->tx_blocked && vs->nresets < VSOCK_RESETS) {
		vs->tx_blocked = false;
		eventfd_write(vs->virtio.queue[VSOCK_TX].kick_fd, 1);
	}
}

void vsock_kick_rx(struct vsock *vs)
{
	vs->starved = false;
	virtq_disable_kicks(vs->rx.q);
	vsock_work(vs);
}

/*
 * The guest's credit comes with each of its packets. They may overtake each other by a little
 * in the guest, so an old count is ignored; one ahead of what we sent is a lie. Returns false
 * for that.
 */
static bool conn_credited(struct conn *c, const struct virtio_vsock_hdr *hdr)
{
	uint32_t fwd = le32toh(hdr->fwd_cnt);

	if (c->sent - fwd > c->sent - c->guest_fwd) {
		if ((int32_t)(c->guest_fwd - fwd) < 0)
			return false;
		fwd = c->guest_fwd;
	}
	c->guest_fwd = fwd;
	c->guest_alloc = le32toh(hdr->buf_alloc);
	c->asked_credit = false;
	if (c->state == CONN_OPEN && readable(c) && !(c->events & EPOLLIN) && conn_credit(c)) {
		c->want_read = true;
		vsock_want_work(c);
	}
	return true;
}

/* A packet for a connection the guest has. len: its payload, which is there. */
static void conn_packet(struct conn *c, const struct virtio_vsock_hdr *hdr, uint32_t len)
{
	struct vsock *vs = c->vs;
	struct iovec iov[VIRTQ_IOV_MAX];
	uint16_t op = le16toh(hdr->op);
	uint32_t flags = le32toh(hdr->flags) & VSOCK_BOTH;

	if (c->state == CONN_DEAD || c->state == CONN_LINGER)
		return; /* its reset is on the way */
	if (op == VIRTIO_VSOCK_OP_RST) {
		conn_reset_by_guest(c);
		return;
	}
	if (!conn_credited(c, hdr)) {
		conn_reset(c);
		return;
	}
	if (c->state == CONN_REQUESTED && op == VIRTIO_VSOCK_OP_RESPONSE) {
		conn_accepted(c);
		return;
	}
	if (c->state != CONN_OPEN) {
		conn_reset(c);
		return;
	}
	switch (op) {
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		conn_shut_by_guest(c, (uint8_t)flags);
		return;
	case VIRTIO_VSOCK_OP_RW:
		if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
		    len > VSOCK_BUFFER - (c->received - c->forwarded)) {
			conn_reset(c);
			return;
		}
		conn_receive(c, iov,
			     iov_slice(vs->chain.iov, vs->chain.nread, VSOCK_HEADER, len, iov),
			     len);
		return;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		return;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->send |= SEND_CREDIT_UPDATE;
		vsock_want_work(c);
		return;
	default:
		conn_reset(c);
	}
}

/* Answers a packet that belongs to no connection. There is room: kick_tx looked. */
static void refuse(struct vsock *vs, uint32_t guest_port, uint32_t host_port)
{
	vs->reset[vs->nresets++] = (struct vsock_reset){guest_port, host_port};
}

/* Handles the packet in vs->chain. */
static void packet(struct vsock *vs)
{
	struct virtio_vsock_hdr hdr;
	uint32_t guest_port, host_port, len;
	uint16_t op;
	struct conn *c;

	if (virtq_chain_read(&vs->chain, 0, &hdr, sizeof(hdr)) != sizeof(hdr) ||
	    le64toh(hdr.src_cid) != vs->cid || le64toh(hdr.dst_cid) != VSOCK_HOST_CID)
		return; /* nobody to answer */
	guest_port = le32toh(hdr.src_port);
	host_port = le32toh(hdr.dst_port);
	op = le16toh(hdr.op);
	len = le32toh(hdr.len);
	c = vsock_find(vs, guest_port, host_port);
	if (le16toh(hdr.type) != VIRTIO_VSOCK_TYPE_STREAM ||
	    len > vs->chain.read_bytes - VSOCK_HEADER || (len && op != VIRTIO_VSOCK_OP_RW) ||
	    (c && op == VIRTIO_VSOCK_OP_REQUEST)) {
		if (c)
			conn_reset(c);
		else if (op != VIRTIO_VSOCK_OP_RST)
			refuse(vs, guest_port, host_port);
		return;
	}
	if (c) {
		conn_packet(c, &hdr, len);
		return;
	}
	if (op == VIRTIO_VSOCK_OP_REQUEST) {
		c = conn_connect(vs, guest_port, host_port);
		if (c && !conn_credited(c, &hdr))
			conn_reset(c);
	}
	if (!c && op != VIRTIO_VSOCK_OP_RST)
		refuse(vs, guest_port, host_port);
}

void vsock_kick_tx(struct vsock *vs)
{
	struct virtq *q = &vs->virtio.queue[VSOCK_TX];
	unsigned budget = BATCH;

	do {
		virtq_disable_kicks(q);
		while (budget && vs->nresets < VSOCK_RESETS && virtq_pop(q, &vs->chain) > 0) {
			packet(vs);
			virtq_push(q, &vs->chain, 0);
			budget--;
		}
		vs->tx_blocked = vs->nresets == VSOCK_RESETS;
	} while (budget && !vs->tx_blocked && virtq_enable_kicks(q));
	if (!budget)
		eventfd_write(q->kick_fd, 1); /* the rest after other devices had a turn */
	virtq_notify(q);
	vsock_work(vs);
}

/*
 * How many event buffers the guest has ever added; it kicks when it adds another: the kick is
 * asked for behind those that are there.
 */
static uint16_t event_buffers(struct vsock *vs)
{
	struct virtq *q = &vs->virtio.queue[VSOCK_EVENT];
	uint16_t n = 0, added;

	do {
		while (n < q->size && virtq_pop(q, &vs->chain) > 0)
			n++;
	} while (n < q->size && virtq_enable_kicks(q));
	added = q->next_avail;
	virtq_unpop(q, n);
	return added;
}

/*
 * After the VM came back from saved state its connections are gone. The guest has taken
 * notice when it gives the event's buffer back; a connection made before would be reset.
 */
void vsock_kick_event(struct vsock *vs)
{
	struct virtq *q = &vs->virtio.queue[VSOCK_EVENT];
	uint32_t event = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	uint16_t added = event_buffers(vs);

	if (vs->reset_told && added != vs->events_added) {
		vs->reset_told = false;
		vsock_work(vs);
	}
	if (!vs->reset_event || virtq_pop(q, &vs->chain) <= 0)
		return;
	if (virtq_chain_write(&vs->chain, 0, &event, sizeof(event)) != sizeof(event)) {
		virtio_broken(&vs->virtio, "an event buffer of %u bytes", vs->chain.write_bytes);
		return;
	}
	virtq_push(q, &vs->chain, sizeof(event));
	virtq_notify(q);
	vs->events_added = added;
	vs->reset_event = false;
	vs->reset_told = true;
}
