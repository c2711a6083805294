/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over a blocking stream. */

#include "agent/proto.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"

void channel_init(struct channel *ch, int fd)
{
	*ch = (struct channel){.fd = fd};
}

void channel_done(struct channel *ch)
{
	buffer_done(&ch->in);
}

/* Returns 0 when the socket has what is waited for, -ETIMEDOUT when the deadline has passed. */
static int wait_deadline(const struct channel *ch, short events)
{
	struct pollfd p = {.fd = ch->fd, .events = events};

	for (;;) {
		uint64_t now = io_now_ns();
		uint64_t left_ms =
			ch->deadline_ns > now ? (ch->deadline_ns - now) / 1000000 + 1 : 0;
		int r = poll(&p, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);

		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0)
			return 0;
		if (!left_ms)
			return -ETIMEDOUT;
	}
}

static ssize_t read_some(const struct channel *ch, void *p, size_t size)
{
	int r = ch->deadline_ns ? wait_deadline(ch, POLLIN) : 0;
	ssize_t n;

	if (r)
		return r;
	n = read(ch->fd, p, size);
	return n < 0 ? -errno : n;
}

int channel_receive(struct channel *ch, struct frame *ret, struct error *err)
{
	if (ch->frame.data)
		frame_consume(&ch->in, &ch->frame);
	ch->frame = (struct frame){0};
	for (;;) {
		uint8_t *p;
		ssize_t n;
		int r = frame_parse(&ch->in, &ch->frame, err);

		if (r < 0)
			return r;
		if (r) {
			*ret = ch->frame;
			return 0;
		}
		p = buffer_reserve(&ch->in, PROTO_HEADER + PROTO_MAX_PAYLOAD);
		if (!p)
			return error_errno(err, -ENOMEM, "cannot receive");
		n = read_some(ch, p, PROTO_HEADER + PROTO_MAX_PAYLOAD);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return error_errno(err, (int)n, "connection to the agent");
		if (!n)
			return error_set(err, -EPIPE, "the agent closed the connection");
		buffer_commit(&ch->in, (size_t)n);
	}
}

int channel_expect(struct channel *ch, enum frame_type type, struct frame *ret, struct error *err)
{
	int r = channel_receive(ch, ret, err);

	if (r)
		return r;
	if (ret->type == FRAME_ERROR && type != FRAME_ERROR)
		return frame_error(ret, err);
	if (ret->type != type)
		return error_set(err, -EPROTO, "the agent sent frame %d where %d was due",
				 (int)ret->type, (int)type);
	return 0;
}

static int write_deadline(const struct channel *ch, const uint8_t *p, size_t size)
{
	while (size) {
		ssize_t n = send(ch->fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			int r = wait_deadline(ch, POLLOUT);

			if (r)
				return r;
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		} else if (n > 0) {
			p += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

int channel_send_buffer(struct channel *ch, const struct buffer *b, struct error *err)
{
	const uint8_t *start = b->data + b->start;
	int r = ch->deadline_ns ? write_deadline(ch, start, buffer_used(b))
				: io_write_full(ch->fd, start, buffer_used(b));

	return r ? error_errno(err, r, "connection to the agent") : 0;
}

int channel_send(struct channel *ch, enum frame_type type, const void *data, size_t size,
		 struct error *err)
{
	struct buffer b = {0};
	int r = frame_append(&b, type, data, size);

	r = r ? error_errno(err, r, "cannot send") : channel_send_buffer(ch, &b, err);
	buffer_done(&b);
	return r;
}

int channel_send_json(struct channel *ch, enum frame_type type, const json_t *value,
		      struct error *err)
{
	struct buffer b = {0};
	int r = frame_append_json(&b, type, value);

	r = r ? error_errno(err, r, "cannot send the request") : channel_send_buffer(ch, &b, err);
	buffer_done(&b);
	return r;
}

int channel_hello(struct channel *ch, struct error *err)
{
	struct buffer b = {0};
	struct frame frame;
	int r = frame_append_hello(&b);

	r = r ? error_errno(err, r, "cannot send") : channel_send_buffer(ch, &b, err);
	buffer_done(&b);
	if (!r)
		r = channel_receive(ch, &frame, err);
	if (!r)
		r = frame.type == FRAME_ERROR ? frame_error(&frame, err)
					      : frame_check_hello(&frame, err);
	return r;
}
