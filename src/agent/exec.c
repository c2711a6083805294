/* SPDX-License-Identifier: Apache-2.0 */
/* A program far away with the caller's streams, signals and terminal: run, or attached to. */

#include "agent/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/caller.h"
#include "agent/client-task.h"
#include "agent/proto.h"
#include "lib/error.h"

#define ESCAPE 0x1d /* Ctrl-] */
#define LEAVE_MS 1000

struct run {
	const struct client_exec *exec;
	struct task_client *client;
	struct caller caller;
	int fd;
	int blocked;	 /* descriptor that takes no output now, or -1 */
	bool task;	 /* it goes on without us */
	bool input_done; /* the end of our input was passed on, or there is none */
};

static ssize_t on_output(void *arg, enum stream_number stream, uint64_t position, const void *data,
			 size_t n)
{
	struct run *run = arg;
	int fd = stream == STREAM_ERR ? run->exec->err_fd : run->exec->out_fd;
	ssize_t r = n ? caller_write(fd, data, n) : 0;

	run->blocked = r >= 0 && (size_t)r < n ? fd : -1;
	if (run->task && r > 0 && (size_t)r == n &&
	    task_client_ack(run->client, stream, position + n))
		return -ENOMEM;
	return r;
}

static const struct task_client_ops ops = {.output = on_output};

/*
 * What was acknowledged is not to come again: waits, a little, until the agent has seen that and
 * our end. A connection that is closed with bytes unread may lose it.
 */
static int leave(struct run *run, struct error *err)
{
	struct pollfd p = {.fd = run->fd, .events = POLLIN};
	char buf[4096];

	task_client_run(run->client, EPOLLOUT, NULL);
	shutdown(run->fd, SHUT_WR);
	while (poll(&p, 1, LEAVE_MS) > 0 && recv(run->fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		continue;
	return error_set(err, -ECONNABORTED, "left; the task goes on");
}

static int read_input(struct run *run, struct error *err)
{
	char buf[PROTO_MAX_PAYLOAD], *escape = NULL;
	size_t room = task_client_room(run->client);
	ssize_t n = read(run->exec->in_fd, buf, room < sizeof(buf) ? room : sizeof(buf));
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	run->input_done = n <= 0;
	if (n > 0 && run->task && run->caller.terminal >= 0)
		escape = memchr(buf, ESCAPE, (size_t)n);
	if (n > 0)
		r = task_client_input(run->client, buf,
				      escape ? (size_t)(escape - buf) : (size_t)n);
	else
		r = task_client_input_end(run->client);
	if (r)
		return error_errno(err, r, "stdin");
	return escape ? leave(run, err) : 0;
}

static int forward_winsize(struct run *run)
{
	struct winsize ws;

	if (!run->exec->terminal || (ioctl(run->exec->in_fd, TIOCGWINSZ, &ws) < 0 &&
				     ioctl(run->exec->out_fd, TIOCGWINSZ, &ws) < 0))
		return 0;
	return task_client_winsize(run->client, ws.ws_row, ws.ws_col);
}

static int forward_signal(struct run *run, struct error *err)
{
	int signo = caller_signal(&run->caller, err);
	int r;

	if (signo <= 0)
		return signo;
	if (run->task && signo == SIGHUP)
		return leave(run, err);
	r = signo == SIGWINCH ? forward_winsize(run) : task_client_signal(run->client, signo);
	if (r == -ENOTCONN)
		r = signo == SIGWINCH ? 0 : error_set(err, -EINTR, "%s", strsignal(signo));
	return r == -ENOMEM ? error_errno(err, r, "cannot forward a signal") : r;
}

/* A descriptor in p only while something is wanted: poll reports hang-ups unasked, for ever. */
static void want(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

/* Waits once, and does what can be done. 1: the program has ended. */
static int step(struct run *run, struct error *err)
{
	enum { SOCKET, INPUT, OUTPUT, SIGNALS, COUNT };
	struct pollfd p[COUNT];
	uint32_t events = task_client_events(run->client);
	int r = 0;

	/* The bits of epoll are those of poll. */
	want(&p[SOCKET], run->fd, (short)events);
	want(&p[INPUT], run->exec->in_fd,
	     !run->input_done && task_client_room(run->client) ? POLLIN : 0);
	want(&p[OUTPUT], run->blocked, run->blocked >= 0 ? POLLOUT : 0);
	want(&p[SIGNALS], run->caller.signal_fd, POLLIN);
	if (poll(p, COUNT, -1) < 0)
		return errno == EINTR ? 0 : error_errno(err, -errno, "cannot wait");
	if (p[SIGNALS].revents)
		r = forward_signal(run, err);
	if (!r && p[OUTPUT].revents)
		r = task_client_resume(run->client, err);
	if (!r && p[INPUT].revents)
		r = read_input(run, err);
	if (!r && p[SOCKET].revents)
		r = task_client_run(run->client, (uint32_t)p[SOCKET].revents, err);
	return r;
}

/* From the request, which is in the client, to the end. */
static int run_to_end(struct run *run, int *code, struct error *err)
{
	const struct client_exec *exec = run->exec;
	bool greeted = !run->task; /* exec has told the size of its terminal */
	int r = caller_begin(&run->caller, exec->terminal ? exec->in_fd : -1, err);

	if (r)
		return r;
	if (exec->in_fd < 0) {
		run->input_done = true;
		r = run->task ? 0 : task_client_input_end(run->client);
	}
	while (!r) {
		r = step(run, err);
		if (!r && !greeted && task_client_attached(run->client)) {
			greeted = true;
			r = forward_winsize(run);
		}
	}
	caller_end(&run->caller);
	if (r > 0)
		*code = task_client_code(run->client);
	return r < 0 ? r : 0;
}

int client_exec(int fd, const struct client_exec *exec, int *code, struct error *err)
{
	struct run run = {.exec = exec, .fd = fd, .blocked = -1};
	int r = task_client_create("", &ops, &run, &run.client, err);

	if (!r)
		r = task_client_exec(run.client, fd, exec, err);
	if (!r)
		r = run_to_end(&run, code, err);
	task_client_destroy(run.client);
	return r;
}

int client_task_attach(int fd, const char *id, const struct client_exec *exec, int *code,
		       struct error *err)
{
	struct run run = {.exec = exec, .fd = fd, .blocked = -1, .task = true};
	int r = task_client_create(id, &ops, &run, &run.client, err);

	if (!r)
		r = task_client_attach(run.client, fd, true, err);
	if (!r)
		r = run_to_end(&run, code, err);
	task_client_destroy(run.client);
	return r;
}
