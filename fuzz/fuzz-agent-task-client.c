/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent may send to the client of a task, by several connections, while it gives input. */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/client-task.h"
#include "input.h"
#include "lib/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
	struct task_client *client;
	struct input in;
	int fds[2]; /* the client's end, the agent's */
	bool blocked;
	volatile unsigned sum;
};

static ssize_t on_output(void *arg, enum stream_number stream, uint64_t position, const void *data,
			 size_t n)
{
	struct state *st = arg;
	size_t taken = n && input_u8(&st->in) & 1 ? n / 2 : n;

	st->blocked = taken < n;
	/* All of it can be read, which a sanitizer checks. */
	for (size_t i = 0; i < n; i++)
		st->sum += ((const uint8_t *)data)[i];
	if (task_client_ack(st->client, stream, position + taken) == -ENOMEM)
		abort();
	return (ssize_t)taken;
}

static int on_input(void *arg, uint64_t position)
{
	return position & 1 ? -ESPIPE : 0;
}

static const struct task_client_ops ops = {.output = on_output, .input = on_input};

static void connection(struct state *st)
{
	for (int i = 0; i < 2; i++)
		if (st->fds[i] >= 0)
			close(st->fds[i]);
	st->blocked = false;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, st->fds) ||
	    task_client_attach(st->client, st->fds[0], input_u8(&st->in) & 1, NULL))
		abort();
}

/* A frame as it may be, mostly; or bytes of any kind. */
static void agent_says(struct state *st)
{
	struct buffer b = {0};
	unsigned how = input_u8(&st->in) % 10;

	if (how == 0)
		frame_append_hello(&b);
	else if (how == 1)
		frame_append_u32(&b, FRAME_STARTED, 1);
	else if (how == 2)
		frame_append_position(&b, input_u8(&st->in) % 4, input_number(&st->in, 2));
	else if (how == 3)
		frame_append_position(&b, 0, input_number(&st->in, 8));
	else if (how == 4)
		frame_append_u32(&b, FRAME_CREDIT, (uint32_t)input_number(&st->in, 4));
	else if (how < 8)
		frame_append(&b, how & 1 ? FRAME_STDOUT : FRAME_STDERR, "0123456789abcdef",
			     input_u8(&st->in) % 17);
	else if (how == 8)
		frame_append_exit(&b, 0);
	else
		frame_append(&b, input_u8(&st->in) % 40, st->in.data,
			     st->in.size < 1000 ? st->in.size : 1000);
	if (write(st->fds[1], b.data + b.start, buffer_used(&b)) < 0 && errno != EAGAIN)
		abort();
	buffer_done(&b);
}

static void give_input(struct state *st)
{
	static const uint8_t zeros[PROTO_MAX_PAYLOAD];
	size_t room = task_client_room(st->client);

	if (room > sizeof(zeros) || task_client_input(st->client, zeros, room))
		abort();
	if (input_u8(&st->in) == 255 && task_client_input_end(st->client))
		abort();
}

/* The agent takes what was sent. */
static void drain(struct state *st)
{
	uint8_t buf[4096];

	while (read(st->fds[1], buf, sizeof(buf)) > 0)
		continue;
}

static void step(struct state *st)
{
	struct error err;
	uint32_t events = task_client_events(st->client);
	int r = 0;

	switch (input_u8(&st->in) % 4) {
	case 0:
		agent_says(st);
		return;
	case 1:
		give_input(st);
		return;
	case 2:
		if (st->blocked)
			r = task_client_resume(st->client, &err);
		drain(st);
		break;
	default:
		r = task_client_run(st->client, events, &err);
		break;
	}
	if (r)
		connection(st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state st = {.in = {.data = data, .size = size}, .fds = {-1, -1}};

	if (task_client_create("a", &ops, &st, &st.client, NULL))
		abort();
	connection(&st);
	while (st.in.pos < st.in.size)
		step(&st);
	task_client_destroy(st.client);
	close(st.fds[0]);
	close(st.fds[1]);
	return 0;
}
