/* SPDX-License-Identifier: Apache-2.0 */
/* struct task_client: a program's session by readiness, which may go on by another connection. */

#include "agent/client-task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/client.h"
#include "agent/request.h"
#include "lib/error.h"

enum stage {
	STAGE_NONE,
	STAGE_HELLO,
	STAGE_ANSWER,	/* the request was sent */
	STAGE_ATTACHED, /* the program runs */
	STAGE_OVER,
};

struct task_client {
	char *id;
	const struct task_client_ops *ops;
	void *arg;
	enum stage stage;
	int fd, code;
	bool positions; /* of a task: positions are told and acknowledged */
	bool starting;	/* the answer is that it runs */
	struct buffer in, out;
	struct json_collector result;
	struct frame output; /* STDOUT or STDERR that was not taken whole; data NULL: none */
	size_t taken;	     /* of it */
	uint64_t had[3];     /* positions of stdout and stderr up to which output was taken */
	/* Input: what is kept from kept on, sent up to sent, and may be sent up to granted. */
	struct buffer input;
	uint64_t kept, sent, granted;
	bool input_given, input_ended, input_end_sent;
};

int task_client_create(const char *id, const struct task_client_ops *ops, void *arg,
		       struct task_client **ret, struct error *err)
{
	struct task_client *c = calloc(1, sizeof(*c));

	if (c)
		c->id = strdup(id);
	if (!c || !c->id) {
		free(c);
		return error_errno(err, -ENOMEM, "task %s", id);
	}
	c->ops = ops;
	c->arg = arg;
	c->fd = -1;
	*ret = c;
	return 0;
}

void task_client_seek(struct task_client *c, enum stream_number stream, uint64_t position)
{
	c->had[stream] = position;
}

/* What belongs to a connection. */
static void forget(struct task_client *c)
{
	buffer_done(&c->in);
	buffer_done(&c->out);
	buffer_done(&c->result.text);
	c->output = (struct frame){0};
	c->fd = -1;
	c->stage = STAGE_NONE;
}

void task_client_destroy(struct task_client *c)
{
	if (!c)
		return;
	forget(c);
	buffer_done(&c->input);
	free(c->id);
	free(c);
}

/* -------- beginning -------- */

/* HELLO and the request at once. Takes request. */
static int begin(struct task_client *c, int fd, json_t *request, bool positions, struct error *err)
{
	int r;

	forget(c);
	r = request ? frame_append_hello(&c->out) : -ENOMEM;
	if (!r)
		r = frame_append_json(&c->out, FRAME_REQUEST, request);
	json_decref(request);
	if (r)
		return error_errno(err, r, "request to the agent");
	c->fd = fd;
	c->positions = positions;
	c->starting = false;
	c->stage = STAGE_HELLO;
	return 0;
}

int task_client_start(struct task_client *c, int fd, const struct client_exec *exec,
		      struct error *err)
{
	json_t *request = NULL;
	int r = request_task_start(c->id, exec, &request, err);

	if (!r)
		r = begin(c, fd, request, true, err);
	if (!r)
		c->starting = true;
	return r;
}

int task_client_exec(struct task_client *c, int fd, const struct client_exec *exec,
		     struct error *err)
{
	json_t *request = NULL;
	int r = request_exec(exec, &request, err);

	return r ? r : begin(c, fd, request, false, err);
}

int task_client_attach(struct task_client *c, int fd, bool afresh, struct error *err)
{
	json_t *request = json_pack("{s:s,s:s}", "op", "task-attach", "id", c->id);

	if (request && !afresh) {
		json_object_set_new(request, "stdout",
				    json_integer((json_int_t)c->had[STREAM_OUT]));
		json_object_set_new(request, "stderr",
				    json_integer((json_int_t)c->had[STREAM_ERR]));
	}
	return begin(c, fd, request, true, err);
}

/* -------- input -------- */

bool task_client_attached(const struct task_client *c)
{
	return c->stage == STAGE_ATTACHED;
}

/* Sends what is granted of what is there. */
static int send_input(struct task_client *c)
{
	uint64_t end = c->kept + buffer_used(&c->input);
	int r = 0;

	while (!r && c->stage == STAGE_ATTACHED && c->sent < end && c->sent < c->granted) {
		uint64_t n = (end < c->granted ? end : c->granted) - c->sent;

		if (n > PROTO_MAX_PAYLOAD)
			n = PROTO_MAX_PAYLOAD;
		r = frame_append(&c->out, FRAME_STDIN,
				 c->input.data + c->input.start + (c->sent - c->kept), (size_t)n);
		c->sent += n;
	}
	if (!r && c->stage == STAGE_ATTACHED && c->sent == end && c->input_ended &&
	    !c->input_end_sent) {
		r = frame_append(&c->out, FRAME_STDIN, NULL, 0);
		c->input_end_sent = true;
	}
	return r;
}

/* The program has read all but the last window of what was granted: that is not asked for again. */
static void trim_input(struct task_client *c)
{
	uint64_t read = c->granted > PROTO_STDIN_WINDOW ? c->granted - PROTO_STDIN_WINDOW : 0;

	if (read > c->sent)
		read = c->sent;
	if (read > c->kept) {
		buffer_consume(&c->input, (size_t)(read - c->kept));
		c->kept = read;
	}
}

/* Where the guest wants the input to go on. */
static int seek_input(struct task_client *c, uint64_t position, struct error *err)
{
	uint64_t end = c->kept + buffer_used(&c->input);
	int r = 0;

	if (position < c->kept || position > end) {
		if (c->ops->input)
			r = c->ops->input(c->arg, position);
		else if (c->input_given)
			r = -ERANGE;
		if (r)
			return error_set(err, r,
					 "task %s wants its input from byte %llu on, which is not "
					 "here any more",
					 c->id, (unsigned long long)position);
		buffer_done(&c->input);
		c->kept = position;
		c->input_ended = false;
	}
	c->sent = c->granted = position;
	c->input_end_sent = false;
	return 0;
}

size_t task_client_room(const struct task_client *c)
{
	uint64_t end = c->kept + buffer_used(&c->input);

	if (c->stage != STAGE_ATTACHED || c->input_ended || c->granted <= end ||
	    buffer_used(&c->out) >= PROTO_MAX_PAYLOAD)
		return 0;
	return c->granted - end < PROTO_MAX_PAYLOAD ? (size_t)(c->granted - end)
						    : PROTO_MAX_PAYLOAD;
}

int task_client_input(struct task_client *c, const void *data, size_t n)
{
	int r;

	trim_input(c);
	r = buffer_append(&c->input, data, n);
	c->input_given |= n > 0;
	return r ? r : send_input(c);
}

int task_client_input_end(struct task_client *c)
{
	c->input_ended = c->input_given = true;
	return send_input(c);
}

/* -------- frames -------- */

/* Offers the output in work. Returns 1 when it was taken whole, 0 when not, or -errno. */
static int give_output(struct task_client *c, struct error *err)
{
	enum stream_number stream = c->output.type == FRAME_STDERR ? STREAM_ERR : STREAM_OUT;
	size_t left = c->output.size - c->taken;
	ssize_t n = c->ops->output(c->arg, stream, c->had[stream], c->output.data + c->taken, left);

	if (n < 0)
		return error_errno(err, (int)n, "cannot write the program's output");
	c->had[stream] += (uint64_t)n;
	c->taken += (size_t)n;
	if ((size_t)n < left)
		return 0;
	c->output.data = NULL;
	return 1;
}

static int on_position(struct task_client *c, const struct frame *frame, struct error *err)
{
	enum stream_number stream;
	uint64_t position;
	int r = frame_position(frame, &stream, &position, err);

	if (r)
		return r;
	if (!c->positions)
		return error_set(err, -EPROTO, "a position of a program that is no task");
	if (stream == STREAM_IN)
		return seek_input(c, position, err);
	c->had[stream] = position;
	if (c->ops->position)
		c->ops->position(c->arg, stream, position);
	return 0;
}

static int on_credit(struct task_client *c, const struct frame *frame, struct error *err)
{
	c->granted += frame_u32(frame);
	trim_input(c);
	return send_input(c) ? error_errno(err, -ENOMEM, "stdin") : 0;
}

/* A frame once the request was understood: 0, 1 at the end, or -errno. */
static int on_frame(struct task_client *c, const struct frame *frame, struct error *err)
{
	bool attached = c->stage == STAGE_ATTACHED;
	json_t *result;
	int r;

	if (frame->type == FRAME_ERROR)
		return frame_error(frame, err);
	if (!attached && !c->starting && frame->type == FRAME_STARTED) {
		c->stage = STAGE_ATTACHED;
		return 0;
	}
	if (c->starting && frame->type == FRAME_RESULT) {
		r = json_collect(&c->result, frame, &result, err);
		if (r > 0)
			json_decref(result);
		return r;
	}
	if (attached && frame->type == FRAME_POSITION)
		return on_position(c, frame, err);
	if (attached && frame->type == FRAME_CREDIT)
		return on_credit(c, frame, err);
	if (attached && frame->type == FRAME_EXIT) {
		c->code = frame_exit_code(frame);
		return 1;
	}
	return error_set(err, -EPROTO, "the agent sent frame %d while a program runs",
			 (int)frame->type);
}

static int on_hello(struct task_client *c, const struct frame *frame, struct error *err)
{
	if (frame->type == FRAME_ERROR)
		return frame_error(frame, err);
	c->stage = STAGE_ANSWER;
	return frame_check_hello(frame, err);
}

/* Takes the frames that are there; one of output stays in the buffer until it was taken. */
static int take_frames(struct task_client *c, struct error *err)
{
	struct frame frame;
	int r = 0;

	while (!r) {
		if (c->output.data) {
			frame = c->output;
			r = give_output(c, err);
			if (r <= 0)
				return r;
			frame_consume(&c->in, &frame);
		}
		r = frame_parse(&c->in, &frame, err);
		if (r <= 0)
			return r;
		if (c->stage == STAGE_ATTACHED &&
		    (frame.type == FRAME_STDOUT || frame.type == FRAME_STDERR)) {
			c->output = frame;
			c->taken = 0;
			r = 0;
			continue;
		}
		r = c->stage == STAGE_HELLO ? on_hello(c, &frame, err) : on_frame(c, &frame, err);
		frame_consume(&c->in, &frame);
	}
	return r;
}

/* -------- the connection -------- */

static int receive(struct task_client *c, struct error *err)
{
	uint8_t *p = buffer_reserve(&c->in, PROTO_HEADER + PROTO_MAX_PAYLOAD);
	ssize_t n;

	if (!p)
		return error_errno(err, -ENOMEM, "cannot receive");
	n = recv(c->fd, p, PROTO_HEADER + PROTO_MAX_PAYLOAD, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return error_errno(err, -errno, "connection to the agent");
	if (!n)
		return error_set(err, -EPIPE, "the agent closed the connection");
	buffer_commit(&c->in, (size_t)n);
	return take_frames(c, err);
}

static int transmit(struct task_client *c, struct error *err)
{
	ssize_t n = send(c->fd, c->out.data + c->out.start, buffer_used(&c->out),
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	/* A broken connection still has what the agent said last: reading finds its end. */
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		n = (ssize_t)buffer_used(&c->out);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR
			       ? 0
			       : error_errno(err, -errno, "connection to the agent");
	buffer_consume(&c->out, (size_t)n);
	return 0;
}

static int end(struct task_client *c, int r)
{
	if (r)
		c->stage = STAGE_OVER;
	return r;
}

uint32_t task_client_events(const struct task_client *c)
{
	if (c->stage == STAGE_NONE || c->stage == STAGE_OVER)
		return 0;
	return (c->output.data ? 0 : EPOLLIN) | (buffer_used(&c->out) ? EPOLLOUT : 0);
}

int task_client_run(struct task_client *c, uint32_t events, struct error *err)
{
	uint32_t wanted = task_client_events(c);
	int r = 0;

	if (c->stage == STAGE_NONE || c->stage == STAGE_OVER)
		return error_set(err, -ENOTCONN, "task %s is not attached", c->id);
	if (wanted & EPOLLOUT && events)
		r = transmit(c, err);
	if (!r && wanted & EPOLLIN && events & ~(uint32_t)EPOLLOUT)
		r = receive(c, err);
	return end(c, r);
}

int task_client_resume(struct task_client *c, struct error *err)
{
	return c->output.data ? end(c, take_frames(c, err)) : 0;
}

int task_client_code(const struct task_client *c)
{
	return c->code;
}

static int attached(const struct task_client *c)
{
	return c->stage == STAGE_ATTACHED ? 0 : -ENOTCONN;
}

int task_client_ack(struct task_client *c, enum stream_number stream, uint64_t position)
{
	if (attached(c) || !c->positions)
		return -ENOTCONN;
	return frame_append_position(&c->out, stream, position);
}

int task_client_signal(struct task_client *c, int signo)
{
	int r = attached(c);

	return r ? r : frame_append_u32(&c->out, FRAME_SIGNAL, (uint32_t)signo);
}

int task_client_winsize(struct task_client *c, unsigned rows, unsigned cols)
{
	int r = attached(c);

	return r ? r : frame_append_winsize(&c->out, rows, cols);
}
