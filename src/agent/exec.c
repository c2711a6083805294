/* SPDX-License-Identifier: Apache-2.0 */
/* client_exec(): a program far away with the caller's streams, signals and terminal. */

#include "agent/client.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "agent/proto.h"
#include "agent/request.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define PIPE_CHUNK 4096 /* a pipe or terminal that is writable takes this without blocking */
#define GIVE_UP_AFTER 3 /* times the same signal */

static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};

struct run {
	const struct client_exec *exec;
	int fd, signal_fd;
	struct buffer in, out;
	struct frame output; /* STDOUT or STDERR in work; size 0: none */
	size_t written;	     /* of it */
	uint32_t credit;
	bool started, input_ended, done;
	int code;
	int last_signal, repeated;
	sigset_t old_mask;
	struct termios old_term;
	bool raw;
};

static int input_end(struct run *run, struct error *err)
{
	run->input_ended = true;
	return frame_append(&run->out, FRAME_STDIN, NULL, 0) ? error_errno(err, -ENOMEM, "stdin")
							     : 0;
}

/* Takes one frame; an output frame stays in the buffer until it is written. */
static int take_frame(struct run *run, const struct frame *frame, struct error *err)
{
	switch (frame->type) {
	case FRAME_STDOUT:
	case FRAME_STDERR:
		run->output = *frame;
		run->written = 0;
		break;
	case FRAME_STARTED:
		run->started = true;
		if (run->exec->in_fd < 0)
			return input_end(run, err);
		break;
	case FRAME_CREDIT:
		run->credit += frame_u32(frame);
		break;
	case FRAME_EXIT:
		run->code = frame_exit_code(frame);
		run->done = true;
		break;
	case FRAME_ERROR:
		return frame_error(frame, err);
	default:
		return error_set(err, -EPROTO, "the agent sent frame %d while a program runs",
				 (int)frame->type);
	}
	return 0;
}

static int take_frames(struct run *run, struct error *err)
{
	while (!run->done && !run->output.size) {
		struct frame frame;
		int r = frame_parse(&run->in, &frame, err);

		if (r > 0)
			r = take_frame(run, &frame, err);
		else if (!r)
			return 0;
		if (r < 0)
			return r;
		if (!run->output.size)
			frame_consume(&run->in, &frame);
	}
	return 0;
}

static int receive(struct run *run, struct error *err)
{
	uint8_t *p = buffer_reserve(&run->in, PROTO_HEADER + PROTO_MAX_PAYLOAD);
	ssize_t n;

	if (!p)
		return error_errno(err, -ENOMEM, "cannot receive");
	n = recv(run->fd, p, PROTO_HEADER + PROTO_MAX_PAYLOAD, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return error_errno(err, -errno, "connection to the agent");
	if (!n)
		return error_set(err, -EPIPE, "the agent closed the connection");
	buffer_commit(&run->in, (size_t)n);
	return take_frames(run, err);
}

static int transmit(struct run *run, struct error *err)
{
	ssize_t n = send(run->fd, run->out.data + run->out.start, buffer_used(&run->out),
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	/* A broken connection still has what the agent said last: reading finds its end. */
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		n = (ssize_t)buffer_used(&run->out);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR
			       ? 0
			       : error_errno(err, -errno, "connection to the agent");
	buffer_consume(&run->out, (size_t)n);
	return 0;
}

static int read_input(struct run *run, struct error *err)
{
	size_t room = run->credit < PROTO_MAX_PAYLOAD ? run->credit : PROTO_MAX_PAYLOAD;
	uint8_t *p = frame_reserve(&run->out);
	ssize_t n;

	if (!p)
		return error_errno(err, -ENOMEM, "stdin");
	n = read(run->exec->in_fd, p, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return input_end(run, err);
	frame_commit(&run->out, FRAME_STDIN, (size_t)n);
	run->credit -= (uint32_t)n;
	return 0;
}

static int output_fd(const struct run *run)
{
	return run->output.type == FRAME_STDERR ? run->exec->err_fd : run->exec->out_fd;
}

/* Writes what the descriptor takes without blocking. */
static ssize_t write_some(int fd, const uint8_t *data, size_t n)
{
	ssize_t r = send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	struct stat st;

	if (r >= 0 || errno != ENOTSOCK)
		return r;
	if (n > PIPE_CHUNK && !(!fstat(fd, &st) && S_ISREG(st.st_mode)))
		n = PIPE_CHUNK;
	return write(fd, data, n);
}

static int write_output(struct run *run, struct error *err)
{
	ssize_t n = write_some(output_fd(run), run->output.data + run->written,
			       run->output.size - run->written);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR
			       ? 0
			       : error_errno(err, -errno, "cannot write the program's output");
	run->written += (size_t)n;
	if (run->written < run->output.size)
		return 0;
	frame_consume(&run->in, &run->output);
	run->output.size = 0;
	return take_frames(run, err);
}

static int forward_winsize(struct run *run)
{
	struct winsize ws;

	if (!run->exec->terminal || (ioctl(run->exec->in_fd, TIOCGWINSZ, &ws) < 0 &&
				     ioctl(run->exec->out_fd, TIOCGWINSZ, &ws) < 0))
		return 0;
	return frame_append_winsize(&run->out, ws.ws_row, ws.ws_col);
}

static int forward_signal(struct run *run, struct error *err)
{
	struct signalfd_siginfo info;
	int signo, r;

	if (read(run->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	signo = (int)info.ssi_signo;
	if (signo == SIGWINCH) {
		r = forward_winsize(run);
	} else {
		run->repeated = signo == run->last_signal ? run->repeated + 1 : 1;
		run->last_signal = signo;
		if (run->repeated == GIVE_UP_AFTER && signo != SIGUSR1 && signo != SIGUSR2)
			return error_set(err, -EINTR, "given up after %d times %s", GIVE_UP_AFTER,
					 strsignal(signo));
		r = frame_append_u32(&run->out, FRAME_SIGNAL, (uint32_t)signo);
	}
	return r ? error_errno(err, r, "cannot forward a signal") : 0;
}

/* A descriptor in p only while something is wanted: poll reports hang-ups unasked, for ever. */
static void want(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

static int step(struct run *run, struct error *err)
{
	enum { SOCKET, INPUT, OUTPUT, SIGNALS, COUNT };
	struct pollfd p[COUNT];
	bool input = run->started && run->credit && !run->input_ended &&
		     buffer_used(&run->out) < PROTO_MAX_PAYLOAD;
	int r = 0;

	want(&p[SOCKET], run->fd,
	     (short)((run->output.size ? 0 : POLLIN) | (buffer_used(&run->out) ? POLLOUT : 0)));
	want(&p[INPUT], run->exec->in_fd, input ? POLLIN : 0);
	want(&p[OUTPUT], output_fd(run), run->output.size ? POLLOUT : 0);
	want(&p[SIGNALS], run->signal_fd, POLLIN);
	if (poll(p, COUNT, -1) < 0)
		return errno == EINTR ? 0 : error_errno(err, -errno, "cannot wait");
	if (p[SIGNALS].revents)
		r = forward_signal(run, err);
	if (!r && p[OUTPUT].revents)
		r = write_output(run, err);
	if (!r && p[INPUT].revents)
		r = read_input(run, err);
	if (!r && p[SOCKET].events & POLLOUT && p[SOCKET].revents)
		r = transmit(run, err);
	if (!r && p[SOCKET].events & POLLIN && p[SOCKET].revents && !run->output.size)
		r = receive(run, err);
	return r;
}

static int catch_signals(struct run *run, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	pthread_sigmask(SIG_BLOCK, &set, &run->old_mask);
	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return run->signal_fd < 0 ? error_errno(err, -errno, "cannot catch signals") : 0;
}

static void set_raw(struct run *run)
{
	struct termios raw;

	if (!run->exec->terminal || tcgetattr(run->exec->in_fd, &run->old_term) < 0)
		return;
	raw = run->old_term;
	cfmakeraw(&raw);
	run->raw = !tcsetattr(run->exec->in_fd, TCSADRAIN, &raw);
}

static void restore(struct run *run)
{
	if (run->raw)
		tcsetattr(run->exec->in_fd, TCSADRAIN, &run->old_term);
	if (run->signal_fd >= 0)
		close(run->signal_fd);
	pthread_sigmask(SIG_SETMASK, &run->old_mask, NULL);
	buffer_done(&run->in);
	buffer_done(&run->out);
}

/* HELLO and the request: the agent is silent between the two. */
static int start(struct run *run, struct error *err)
{
	struct channel ch;
	json_t *request = NULL;
	int r = request_exec(run->exec, &request, err);

	if (r)
		return r;
	channel_init(&ch, run->fd);
	r = channel_hello(&ch, err);
	if (!r)
		r = channel_send_json(&ch, FRAME_REQUEST, request, err);
	json_decref(request);
	channel_done(&ch);
	return r;
}

int client_exec(int fd, const struct client_exec *exec, int *code, struct error *err)
{
	struct run run = {.exec = exec, .fd = fd, .signal_fd = -1};
	int r = start(&run, err);

	if (r)
		return r;
	r = catch_signals(&run, err);
	if (!r)
		set_raw(&run);
	while (!r && !run.done)
		r = step(&run, err);
	restore(&run);
	if (!r)
		*code = run.code;
	return r;
}
