/* SPDX-License-Identifier: Apache-2.0 */
/* Input kept for a task. */

#include "job/input.h"

void input_done(struct input *in)
{
	buffer_done(&in->kept);
}

static uint64_t end_of(const struct input *in)
{
	return in->base + buffer_used(&in->kept);
}

int input_add(struct input *in, const void *data, size_t n)
{
	return buffer_append(&in->kept, data, n);
}

size_t input_next(const struct input *in, const uint8_t **ret)
{
	uint64_t to = in->granted < end_of(in) ? in->granted : end_of(in);

	if (to <= in->sent)
		return 0;
	*ret = in->kept.data + in->kept.start + (in->sent - in->base);
	return to - in->sent < PROTO_MAX_PAYLOAD ? (size_t)(to - in->sent) : PROTO_MAX_PAYLOAD;
}

/* Nobody asks again for what is a window before the last byte that was granted. */
static void forget(struct input *in)
{
	uint64_t needed = in->granted > PROTO_STDIN_WINDOW ? in->granted - PROTO_STDIN_WINDOW : 0;

	needed = needed < in->sent ? needed : in->sent;
	if (needed <= in->base)
		return;
	buffer_consume(&in->kept, (size_t)(needed - in->base));
	in->base = needed;
}

void input_went(struct input *in, size_t n)
{
	in->sent += n;
	forget(in);
}

bool input_is_over(const struct input *in)
{
	return in->ends && !in->ended && in->sent == end_of(in);
}

void input_grant(struct input *in, uint64_t n)
{
	in->granted += n;
	forget(in);
}

uint64_t input_go_on(struct input *in, uint64_t position)
{
	uint64_t lost = position < in->base ? in->base - position : 0;

	/* What is kept follows what it has, whatever was between them. */
	if (lost)
		in->base = position;
	if (position > end_of(in)) {
		buffer_consume(&in->kept, buffer_used(&in->kept));
		in->base = position;
	}
	in->sent = in->granted = position;
	in->ended = false;
	return lost;
}
