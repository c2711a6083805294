/* SPDX-License-Identifier: Apache-2.0 */
/* Hands virtqueues to another program and takes them back: the front end of vhost-user. */

#include "vmm/dev/vhost-user.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

/* Requests, flags and bits of the specification ("Message types", "Header", "Protocol features").
 */
enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
};

#define VERSION 1u
#define VERSION_MASK 3u
#define FLAG_REPLY 4u
#define FLAG_NEED_REPLY 8u

#define F_PROTOCOL (1ULL << 30) /* a feature to the two of us, which no driver sees */
#define PROTOCOL_REPLY_ACK (1ULL << 3)

/* What the transport offers to drivers by itself. */
#define NEEDED                                                          \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX | \
	 1ULL << VIRTIO_RING_F_INDIRECT_DESC)

struct region {
	uint64_t gpa, size, host, offset;
};

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t number;
		struct {
			uint32_t index, value;
		} ring;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} address;
		struct {
			uint32_t count, padding;
			struct region region[2];
		} memory;
	} body;
} __attribute__((packed, aligned(4)));

#define HEAD offsetof(struct message, body)
#define FDS_MAX 2

static int lost(struct vhost_user *v, int r)
{
	loop_remove(&v->source);
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	return r;
}

static int send_message(struct vhost_user *v, const struct message *m, const int *fds, unsigned n)
{
	struct iovec iov = {.iov_base = (void *)m, .iov_len = HEAD + m->size};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	if (v->fd < 0)
		return -ENOTCONN;
	if (n) {
		control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS,
						.cmsg_len = CMSG_LEN(n * sizeof(int))};
		memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	do
		sent = sendmsg(v->fd, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	/* A message is far smaller than the socket's buffer: a part of it is a peer that reads
	 * none. */
	if (sent != (ssize_t)iov.iov_len)
		return lost(v, sent < 0 && errno != EAGAIN ? -errno : -ETIMEDOUT);
	return 0;
}

static int receive(struct vhost_user *v, void *buf, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t got = recv(v->fd, (char *)buf + at, n - at, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return lost(v, !got ? -EPIPE : errno == EAGAIN ? -ETIMEDOUT : -errno);
		at += (size_t)got;
	}
	return 0;
}

/* The answer to this request, with so many bytes. */
static int receive_reply(struct vhost_user *v, uint32_t request, struct message *ret, uint32_t size)
{
	int r = receive(v, ret, HEAD);

	if (!r && (ret->request != request || (ret->flags & VERSION_MASK) != VERSION ||
		   !(ret->flags & FLAG_REPLY) || ret->size != size))
		return lost(v, -EPROTO);
	return r ? r : receive(v, &ret->body, size);
}

/* Sends and waits until it has been done: 0, or -EREMOTEIO when the other side refused. */
static int call(struct vhost_user *v, struct message *m, const int *fds, unsigned n)
{
	struct message answer;
	int r;

	m->flags = VERSION | FLAG_NEED_REPLY;
	r = send_message(v, m, fds, n);
	if (!r)
		r = receive_reply(v, m->request, &answer, sizeof(answer.body.number));
	return r ? r : answer.body.number ? -EREMOTEIO : 0;
}

static int get_number(struct vhost_user *v, uint32_t request, uint64_t *ret)
{
	struct message m = {.request = request, .flags = VERSION}, answer;
	int r = send_message(v, &m, NULL, 0);

	if (!r)
		r = receive_reply(v, request, &answer, sizeof(answer.body.number));
	if (!r)
		*ret = answer.body.number;
	return r;
}

/* Before the two have agreed on acknowledgements. */
static int set_number_unheard(struct vhost_user *v, uint32_t request, uint64_t value)
{
	struct message m = {
		.request = request, .flags = VERSION, .size = sizeof(value), .body.number = value};

	return send_message(v, &m, NULL, 0);
}

static int set_number(struct vhost_user *v, uint32_t request, uint64_t value)
{
	struct message m = {
		.request = request, .size = sizeof(m.body.number), .body.number = value};

	return call(v, &m, NULL, 0);
}

static int set_ring(struct vhost_user *v, uint32_t request, unsigned index, uint32_t value)
{
	struct message m = {
		.request = request, .size = sizeof(m.body.ring), .body.ring = {index, value}};

	return call(v, &m, NULL, 0);
}

static int set_fd(struct vhost_user *v, uint32_t request, unsigned index, int fd)
{
	const uint64_t no_fd = 1ULL << 8;
	struct message m = {.request = request,
			    .size = sizeof(m.body.number),
			    .body.number = index | (fd < 0 ? no_fd : 0)};

	return call(v, &m, &fd, fd >= 0);
}

static int negotiate(struct vhost_user *v, struct error *err)
{
	uint64_t protocol = 0;
	int r = get_number(v, GET_FEATURES, &v->features);

	if (r)
		return r;
	if (!(v->features & F_PROTOCOL) || (v->features & NEEDED) != NEEDED)
		return error_set(err, -EPROTONOSUPPORT,
				 "its program lacks features that we need (it has %#llx)",
				 (unsigned long long)v->features);
	r = get_number(v, GET_PROTOCOL_FEATURES, &protocol);
	if (r)
		return r;
	if (!(protocol & PROTOCOL_REPLY_ACK))
		return error_set(err, -EPROTONOSUPPORT,
				 "its program does not acknowledge (REPLY_ACK)");
	r = set_number_unheard(v, SET_PROTOCOL_FEATURES, PROTOCOL_REPLY_ACK);
	if (!r) {
		struct message m = {.request = SET_OWNER};

		r = call(v, &m, NULL, 0);
	}
	return r;
}

int vhost_user_open(struct vhost_user *v, int fd, struct error *err)
{
	const struct timeval patience = {.tv_sec = VHOST_USER_PATIENCE_S};
	struct error why = {""};
	int r;

	*v = (struct vhost_user){.fd = fd, .error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (v->error_fd < 0 ||
	    setsockopt(v->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(v->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		r = -errno;
	else
		r = negotiate(v, &why);
	if (!r)
		return 0;
	vhost_user_close(v);
	return why.text[0] ? error_set(err, r, "%s", why.text)
			   : error_errno(err, r, "no answer by vhost-user");
}

void vhost_user_close(struct vhost_user *v)
{
	loop_remove(&v->error_source);
	lost(v, 0);
	if (v->error_fd >= 0)
		close(v->error_fd);
	v->error_fd = -1;
}

static void on_error(void *arg, uint32_t events)
{
	struct vhost_user *v = arg;
	eventfd_t count;

	eventfd_read(v->error_fd, &count);
	virtio_broken(v->dev, "the program that serves its queues found one that breaks the rules");
}

/*
 * Nothing comes unasked: this is its end, unless it was an answer, which a vCPU's thread has taken
 * since.
 */
static void on_connection(void *arg, uint32_t events)
{
	struct vhost_user *v = arg;
	char c;

	if (recv(v->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	lost(v, 0);
	virtio_broken(v->dev, "the program that served its queues has ended");
}

static int set_memory(struct vhost_user *v)
{
	const struct memory *mem = &v->dev->device.vm->mem;
	struct message m = {.request = SET_MEM_TABLE,
			    .size = (uint32_t)(8 + mem->nregions * sizeof(struct region)),
			    .body.memory.count = mem->nregions};
	int fds[FDS_MAX];

	for (unsigned i = 0; i < mem->nregions; i++) {
		m.body.memory.region[i] =
			(struct region){mem->region[i].gpa, mem->region[i].size,
					(uintptr_t)mem->region[i].host, mem->region[i].offset};
		fds[i] = mem->fd;
	}
	return call(v, &m, fds, mem->nregions);
}

/* Addresses are ours: the other side finds them by the memory table. */
static int set_addresses(struct vhost_user *v, const struct virtq *q)
{
	struct message m = {.request = SET_VRING_ADDR,
			    .size = sizeof(m.body.address),
			    .body.address = {.index = q->index,
					     .desc = (uintptr_t)q->desc_host,
					     .used = (uintptr_t)q->used_host,
					     .avail = (uintptr_t)q->avail_host}};

	return call(v, &m, NULL, 0);
}

static int start_queue(struct vhost_user *v, struct virtq *q)
{
	int r = set_ring(v, SET_VRING_NUM, q->index, q->size);

	if (!r)
		r = set_ring(v, SET_VRING_BASE, q->index, q->next_avail);
	if (!r)
		r = set_addresses(v, q);
	if (!r)
		r = set_fd(v, SET_VRING_ERR, q->index, v->error_fd);
	/* While its vector is masked the signals stay in this eventfd (pci/msix.h). */
	if (!r)
		r = set_fd(v, SET_VRING_CALL, q->index, virtq_call_fd(q));
	if (!r)
		r = set_fd(v, SET_VRING_KICK, q->index, q->kick_fd);
	return r ? r : set_ring(v, SET_VRING_ENABLE, q->index, 1);
}

static int watch(struct vhost_user *v)
{
	struct loop *loop = v->dev->device.vm->loop;
	int r = 0;

	if (!v->error_source)
		r = loop_add_fd(loop, v->error_fd, EPOLLIN, on_error, v, &v->error_source);
	if (!r && !v->source)
		r = loop_add_fd(loop, v->fd, EPOLLIN | EPOLLRDHUP, on_connection, v, &v->source);
	return r;
}

int vhost_user_start(struct vhost_user *v, struct virtio *dev, unsigned nqueues, struct error *err)
{
	int r;

	v->dev = dev;
	v->nqueues = nqueues;
	r = virtio_check_enabled(dev, nqueues, err);
	if (r)
		return r;
	r = set_number(v, SET_FEATURES, (dev->features & v->features) | F_PROTOCOL);
	if (!r)
		r = set_memory(v);
	for (unsigned i = 0; !r && i < nqueues; i++)
		r = start_queue(v, &dev->queue[i]);
	if (!r)
		r = watch(v);
	if (r)
		return error_errno(err, r, "%s: the program that serves it did not take its queues",
				   dev->device.id);
	v->running = true;
	virtio_hand_over(dev, nqueues);
	return 0;
}

/* Ends the queue there and says how far it came. */
static int stop_queue(struct vhost_user *v, struct virtq *q)
{
	struct message m = {.request = GET_VRING_BASE,
			    .flags = VERSION,
			    .size = sizeof(m.body.ring),
			    .body.ring = {.index = q->index}};
	struct message answer;
	int r = send_message(v, &m, NULL, 0);

	if (!r)
		r = receive_reply(v, GET_VRING_BASE, &answer, sizeof(answer.body.ring));
	if (!r && answer.body.ring.index != q->index)
		r = lost(v, -EPROTO);
	if (!r)
		q->next_avail = (uint16_t)answer.body.ring.value;
	return r;
}

int vhost_user_stop(struct vhost_user *v)
{
	int r = 0;

	if (!v->running)
		return 0;
	v->running = false;
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtq *q = &v->dev->queue[i];
		int now = stop_queue(v, q);

		r = r ? r : now;
		virtq_take_back(q);
	}
	if (r)
		virtio_broken(v->dev, "the program that serves its queues did not end: %s",
			      strerrordesc_np(-r));
	return r;
}
