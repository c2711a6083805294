/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over a blocking stream. */

#include "agent/proto.h"

#include <errno.h>
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
		n = read(ch->fd, p, PROTO_HEADER + PROTO_MAX_PAYLOAD);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "connection to the agent");
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

int channel_send_buffer(struct channel *ch, const struct buffer *b, struct error *err)
{
	int r = io_write_full(ch->fd, b->data + b->start, buffer_used(b));

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
