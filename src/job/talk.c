/* SPDX-License-Identifier: Apache-2.0 */
/* The agent protocol over a stream of the node protocol. */

#include "job/talk.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "agent/proto.h"
#include "job/tubes.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define PIECE 65536u

struct talk {
	struct tube *tube;
	const struct talk_ops *ops;
	void *arg;
	struct buffer in, out;
	struct json_collector result;
	bool greeted, sending;
	bool refused; /* by the agent */
	bool ended;   /* its user has left */
	bool busy;    /* it must not be freed just now */
};

static void talk_free(struct talk *t)
{
	buffer_done(&t->in);
	buffer_done(&t->out);
	buffer_done(&t->result.text);
	free(t);
}

/* -------- to the agent -------- */

/* What has gone may be told while it goes. */
static void send_some(struct talk *t)
{
	if (t->sending)
		return;
	t->sending = true;
	while (t->tube && buffer_used(&t->out)) {
		size_t n = buffer_used(&t->out) < PIECE ? buffer_used(&t->out) : PIECE;

		if (tube_write(t->tube, t->out.data + t->out.start, n))
			break;
		buffer_consume(&t->out, n);
	}
	t->sending = false;
}

int talk_say(struct talk *t, unsigned type, const void *data, size_t n)
{
	int r = frame_append(&t->out, type, data, n);

	if (!r)
		send_some(t);
	return r;
}

int talk_say_frame(struct talk *t, const struct buffer *frames)
{
	int r = buffer_append(&t->out, frames->data + frames->start, buffer_used(frames));

	if (!r)
		send_some(t);
	return r;
}

size_t talk_waiting(const struct talk *t)
{
	return buffer_used(&t->out);
}

/* -------- from the agent -------- */

static int take_result(struct talk *t, const struct frame *frame, struct error *err)
{
	json_t *result = NULL;
	int r = json_collect(&t->result, frame, &result, err);

	if (r > 0 && t->ops->result)
		t->ops->result(t->arg, result);
	json_decref(result);
	return r < 0 ? r : 0;
}

static int take_frame(struct talk *t, const struct frame *frame, struct error *err)
{
	if (!t->greeted) {
		t->greeted = true;
		return frame_check_hello(frame, err);
	}
	if (frame->type == FRAME_ERROR) {
		t->refused = true;
		return frame_error(frame, err);
	}
	if (frame->type == FRAME_RESULT)
		return take_result(t, frame, err);
	t->ops->frame(t->arg, frame->type, frame->data, frame->size);
	return 0;
}

static int take_frames(struct talk *t, const uint8_t *data, size_t n, struct error *err)
{
	struct frame frame;
	int r = buffer_append(&t->in, data, n);

	while (!r && !t->ended && (r = frame_parse(&t->in, &frame, err)) > 0) {
		r = take_frame(t, &frame, err);
		frame_consume(&t->in, &frame);
	}
	return r < 0 ? r : 0;
}

static void on_data(void *arg, const uint8_t *data, size_t n)
{
	struct talk *t = arg;
	struct error err = {"out of memory"};
	int r;

	t->busy = true;
	r = take_frames(t, data, n, &err);
	t->busy = false;
	if (t->ended)
		talk_free(t);
	else if (r)
		tube_fail(t->tube, r, err.text);
}

static void on_room(void *arg)
{
	struct talk *t = arg;

	send_some(t);
	if (!buffer_used(&t->out) && t->ops->room)
		t->ops->room(t->arg);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct talk *t = arg;

	t->tube = NULL;
	t->busy = true;
	t->ops->over(t->arg, code, reason);
	talk_free(t);
}

static const struct tube_ops tube_ops = {on_data, on_room, on_closed};

/* -------- life -------- */

struct talk *talk_start(struct tubes *tubes, const char *node, const char *vm, json_t *request,
			const struct talk_ops *ops, void *arg)
{
	struct talk *t = calloc(1, sizeof(*t));
	int r = t && request ? 0 : -ENOMEM;

	if (!r) {
		t->ops = ops;
		t->arg = arg;
		r = frame_append_hello(&t->out);
	}
	if (!r)
		r = frame_append_json(&t->out, FRAME_REQUEST, request);
	if (!r)
		r = tube_open(tubes, node, vm, "agent", &tube_ops, t, &t->tube);
	json_decref(request);
	if (r && t)
		talk_free(t);
	return r ? NULL : t;
}

bool talk_was_refused(const struct talk *t)
{
	return t->refused;
}

void talk_hold(struct talk *t, bool hold)
{
	if (t->tube)
		tube_hold(t->tube, hold);
}

void talk_end(struct talk *t)
{
	if (!t)
		return;
	tube_close(take_ptr(t->tube));
	t->ended = true;
	if (!t->busy)
		talk_free(t);
}
