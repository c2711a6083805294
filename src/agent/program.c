/* SPDX-License-Identifier: Apache-2.0 */
/* A program of the agent: fed within its credit, read while its owner has room, reaped. */

#include "agent/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/runspec.h"
#include "agent/spawn.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define CREDIT_STEP (PROTO_STDIN_WINDOW / 4)
#define KILL_NS 5000000000ULL /* from SIGHUP to SIGKILL when the client has gone */
#define DRAIN_NS 500000000ULL /* for the last output of a terminal, whose amount nobody tells */
#define TERMINAL_END 4	      /* ^D: the end of file that is typed */

/* stdout or stderr; both are the same for a terminal, which has the first alone. */
struct stream {
	struct program *program;
	enum stream_number number;
	int fd;	   /* -1: at its end */
	bool full; /* the owner had no room */
	struct loop_source *source;
	int left; /* after the program's exit: bytes that were there */
};

struct program {
	struct agent *agent;
	struct program *next;
	const struct program_owner *owner; /* NULL: it has gone, or there never was one */
	void *arg;			   /* of the owner's functions */
	struct runspec spec;
	pid_t pid;
	bool started, exited;
	bool timed_out; /* the terminal's last output is there, or SIGKILL was sent */
	int status;	/* of waitpid() */
	struct stream streams[2];
	int in_fd;
	struct buffer in;
	bool in_ended;
	/* Positions in stdin: what has come, what the program has read, what may come. */
	uint64_t received, consumed, granted;
	struct loop_source *in_source;
	int status_fd; /* says why exec failed; end of file: it did not */
	struct loop_source *status_source;
	struct loop_source *timer;
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void input_close(struct program *p)
{
	loop_remove(&p->in_source);
	close_fd(&p->in_fd);
	buffer_done(&p->in);
}

static void stream_close(struct stream *st)
{
	loop_remove(&st->source);
	close_fd(&st->fd);
}

static void status_close(struct program *p)
{
	loop_remove(&p->status_source);
	close_fd(&p->status_fd);
}

static void close_all(struct program *p)
{
	input_close(p);
	stream_close(&p->streams[0]);
	stream_close(&p->streams[1]);
	status_close(p);
}

static void program_destroy(struct program *p)
{
	struct program **at = &p->agent->programs;

	while (*at && *at != p)
		at = &(*at)->next;
	if (*at)
		*at = p->next;
	close_all(p);
	loop_remove(&p->timer);
	runspec_done(&p->spec);
	free(p);
}

/* May free the program. */
static void out_of_memory(struct program *p)
{
	const struct program_owner *owner = p->owner;
	void *arg = p->arg;

	program_hangup(p);
	owner->failed(arg, -ENOMEM, "the agent is out of memory");
}

/* Tells the owner when the program has exited and all it wrote was given. */
static void program_finish(struct program *p)
{
	const struct program_owner *owner = p->owner;

	if (!p->exited || p->streams[0].fd >= 0 || p->streams[1].fd >= 0)
		return;
	p->owner = NULL;
	owner->ended(p->arg, p->status);
	program_destroy(p);
}

static void on_output(void *arg, uint32_t events);

/* Waits for output, or does not: a closed pipe would wake us for ever if it stayed watched. */
static int stream_watch(struct stream *st, bool on)
{
	if (!on || st->fd < 0)
		loop_remove(&st->source);
	else if (!st->source)
		return loop_add_fd(st->program->agent->loop, st->fd, EPOLLIN, on_output, st,
				   &st->source);
	return 0;
}

/* The end of one: of a terminal EIO, of a pipe nothing to read. */
static void stream_end(struct stream *st)
{
	stream_close(st);
	st->program->owner->output(st->program->arg, st->number, 0);
}

/*
 * Reads what the owner has room for. Returns 1 when there may be more, 0 when there is nothing
 * now or no room, -ENOMEM; closes the stream at its end.
 */
static int stream_read(struct stream *st)
{
	struct program *p = st->program;
	bool last = p->exited && !p->spec.terminal;
	size_t room = 0;
	uint8_t *data;
	ssize_t n;

	if (p->owner->room(p->arg, st->number, &data, &room))
		return -ENOMEM;
	st->full = !room;
	if (st->full)
		return 0;
	if (last && (size_t)st->left < room)
		room = (size_t)st->left;
	n = room ? read(st->fd, data, room) : 0;
	if (n < 0 && errno == EINTR)
		return 1;
	if (n < 0 && errno == EAGAIN && !last && !(p->exited && p->timed_out))
		return 0;
	if (n <= 0) {
		stream_end(st);
		return 0;
	}
	if (last)
		st->left -= (int)n;
	p->owner->output(p->arg, st->number, (size_t)n);
	return 1;
}

/*
 * Reads until the owner is full; only once while the program runs, for fairness. Returns false
 * when that failed and the program may be freed.
 */
static bool stream_pump(struct stream *st)
{
	struct program *p = st->program;
	int r = st->fd >= 0;

	while (r > 0) {
		r = stream_read(st);
		if (!p->exited)
			break;
	}
	if (r >= 0)
		r = stream_watch(st, !st->full);
	if (r < 0) {
		out_of_memory(p);
		return false;
	}
	return true;
}

static void on_output(void *arg, uint32_t events)
{
	struct stream *st = arg;
	struct program *p = st->program;

	if (stream_pump(st))
		program_finish(p);
}

void program_resume(struct program *p)
{
	if (p->started && stream_pump(&p->streams[0]) && stream_pump(&p->streams[1]))
		program_finish(p);
}

/* Gives the program what waits for it. Returns 0 or -ENOMEM. */
static int input_write(struct program *p);

static void on_input(void *arg, uint32_t events)
{
	struct program *p = arg;

	if (input_write(p))
		out_of_memory(p);
}

static int input_watch(struct program *p)
{
	if (!buffer_used(&p->in))
		loop_remove(&p->in_source);
	else if (!p->in_source)
		return loop_add_fd(p->agent->loop, p->in_fd, EPOLLOUT, on_input, p, &p->in_source);
	return 0;
}

static int grant(struct program *p)
{
	uint64_t more = p->consumed + PROTO_STDIN_WINDOW - p->granted;

	if (!p->started || more < CREDIT_STEP)
		return 0;
	p->granted += more;
	return p->owner->credit(p->arg, (uint32_t)more);
}

static int input_write(struct program *p)
{
	while (buffer_used(&p->in)) {
		ssize_t n = write(p->in_fd, p->in.data + p->in.start, buffer_used(&p->in));

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0 && errno != EINTR) {
			/* It closed its input: no more credit, and the client stops reading. */
			input_close(p);
			return 0;
		}
		if (n > 0) {
			buffer_consume(&p->in, (size_t)n);
			p->consumed += (uint64_t)n;
		}
	}
	if (!buffer_used(&p->in) && p->in_ended && !p->spec.terminal) {
		input_close(p);
		return 0;
	}
	return input_watch(p) ? -ENOMEM : grant(p);
}

/* The end may come twice: from a client that has come back. */
static int on_stdin_end(struct program *p)
{
	uint8_t end = TERMINAL_END;

	if (p->in_ended)
		return 0;
	p->in_ended = true;
	/* The terminal stays open for signals typed later; there are none: harmless. */
	return p->spec.terminal ? buffer_append(&p->in, &end, 1) : 0;
}

static int on_stdin(struct program *p, const struct frame *frame, struct error *err)
{
	int r;

	if (frame->size > p->granted - p->received || (frame->size && p->in_ended))
		return error_set(err, -EPROTO, "stdin beyond what was granted");
	p->received += frame->size;
	if (frame->size && p->in_fd < 0)
		return 0;
	r = frame->size ? buffer_append(&p->in, frame->data, frame->size) : on_stdin_end(p);
	if (!r && p->in_fd >= 0)
		r = input_write(p);
	return r ? error_errno(err, -ENOMEM, "stdin") : 0;
}

static void on_winsize(struct program *p, const struct frame *frame)
{
	struct winsize ws = {0};
	unsigned rows, cols;

	frame_winsize(frame, &rows, &cols);
	ws.ws_row = (unsigned short)rows;
	ws.ws_col = (unsigned short)cols;
	if (p->spec.terminal && p->streams[0].fd >= 0)
		ioctl(p->streams[0].fd, TIOCSWINSZ, &ws);
}

/* To the group; before the child has made one, to the child. */
static void program_kill(struct program *p, int signo)
{
	if (kill(-p->pid, signo) < 0 && errno == ESRCH && !p->exited)
		kill(p->pid, signo);
}

int program_signal(struct program *p, uint32_t signo, struct error *err)
{
	if (signo < 1 || signo >= (uint32_t)_NSIG)
		return error_set(err, -EINVAL, "signal %u does not exist", signo);
	if (!p->exited)
		program_kill(p, (int)signo);
	return 0;
}

int program_frame(struct program *p, const struct frame *frame, struct error *err)
{
	switch (frame->type) {
	case FRAME_STDIN:
		return on_stdin(p, frame, err);
	case FRAME_WINSIZE:
		on_winsize(p, frame);
		return 0;
	case FRAME_SIGNAL:
		return program_signal(p, frame_u32(frame), err);
	default:
		return error_set(err, -EPROTO, "frame %d while a program runs", (int)frame->type);
	}
}

static void program_failed(struct program *p, const struct spawn_failure *f)
{
	const struct program_owner *owner = p->owner;
	struct error err;

	runspec_error(&p->spec, (enum run_stage)f->stage, -f->code, &err);
	/* What is left of it is only its process. */
	p->owner = NULL;
	close_all(p);
	owner->failed(p->arg, -f->code, err.text);
}

static void program_started(struct program *p)
{
	p->started = true;
	if (stream_watch(&p->streams[0], true) || stream_watch(&p->streams[1], true) ||
	    p->owner->started(p->arg))
		out_of_memory(p);
}

static void on_status(void *arg, uint32_t events)
{
	struct program *p = arg;
	struct spawn_failure f;
	ssize_t n = read(p->status_fd, &f, sizeof(f));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	status_close(p);
	if (n == sizeof(f))
		program_failed(p, &f);
	else
		program_started(p);
}

static void on_timer(void *arg)
{
	struct program *p = arg;

	if (p->owner) {
		p->timed_out = true;
		program_resume(p);
		return;
	}
	kill(-p->pid, SIGKILL);
	p->timed_out = true;
	if (p->exited)
		program_destroy(p);
}

static bool group_gone(const struct program *p)
{
	return kill(-p->pid, 0) < 0 && errno == ESRCH;
}

/* What waits for the program's output no longer does; a terminal is hung up by closing it. */
static void outputs_abandon(struct program *p)
{
	for (int i = 0; i < 2; i++) {
		if (p->spec.terminal)
			stream_close(&p->streams[i]);
		/* A pipe stays open: a last message of the program must not kill it (SIGPIPE). */
		loop_remove(&p->streams[i].source);
	}
}

void program_hangup(struct program *p)
{
	p->owner = NULL;
	input_close(p);
	status_close(p);
	outputs_abandon(p);
	p->timed_out = false;
	if (p->exited && group_gone(p)) {
		program_destroy(p);
		return;
	}
	program_kill(p, SIGHUP);
	program_kill(p, SIGCONT);
	loop_set_timer(p->timer, KILL_NS, 0);
}

static void program_exited(struct program *p, int status)
{
	p->exited = true;
	p->status = status;
	if (!p->owner) {
		/* As long as others of the group live, its number is not given again. */
		if (!p->timer || p->timed_out || group_gone(p))
			program_destroy(p);
		return;
	}
	input_close(p);
	for (int i = 0; i < 2; i++)
		if (p->streams[i].fd >= 0 && ioctl(p->streams[i].fd, FIONREAD, &p->streams[i].left))
			p->streams[i].left = 0;
	if (p->spec.terminal)
		loop_set_timer(p->timer, DRAIN_NS, 0);
	program_resume(p);
}

static void log_end(struct agent *agent, const struct program *p, int status)
{
	if (WIFSIGNALED(status))
		log_warn(&agent->log, "exec", "%s was killed by signal %d", p->spec.path,
			 WTERMSIG(status));
	else
		log_info(&agent->log, "exec", "%s exited with code %d", p->spec.path,
			 WEXITSTATUS(status));
}

void programs_reap(struct agent *agent)
{
	siginfo_t info = {0};

	while (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
		struct program *p = agent->programs;
		int status = 0;

		while (p && p->pid != info.si_pid)
			p = p->next;
		/* Its end may be seen before its failure to start; tell that first. */
		if (p && p->owner && !p->started)
			on_status(p, 0);
		waitpid(info.si_pid, &status, 0);
		info.si_pid = 0;
		if (p && !p->timer)
			log_end(agent, p, status);
		if (p)
			program_exited(p, status);
	}
}

void programs_done(struct agent *agent)
{
	while (agent->programs)
		program_destroy(agent->programs);
}

static struct program *program_new(struct agent *agent)
{
	struct program *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->agent = agent;
	p->in_fd = p->status_fd = -1;
	for (int i = 0; i < 2; i++)
		p->streams[i] = (struct stream){
			.program = p, .fd = -1, .number = i ? STREAM_ERR : STREAM_OUT};
	return p;
}

static void program_add(struct program *p)
{
	p->next = p->agent->programs;
	p->agent->programs = p;
}

/* Starts it and watches for its failure. */
static int program_spawn(struct program *p, struct error *err)
{
	struct spawned fds;
	int r = loop_add_timer(p->agent->loop, on_timer, p, &p->timer);

	if (r)
		return error_errno(err, r, "cannot start %s", p->spec.path);
	r = spawn(p->agent, &p->spec, &fds, err);
	if (r)
		return r;
	p->pid = fds.pid;
	p->in_fd = fds.in;
	p->streams[0].fd = fds.out;
	p->streams[1].fd = fds.err;
	p->status_fd = fds.status;
	r = loop_add_fd(p->agent->loop, p->status_fd, EPOLLIN, on_status, p, &p->status_source);
	if (!r)
		return 0;
	/* Reaped as an orphan. */
	kill(p->pid, SIGKILL);
	return error_errno(err, r, "cannot start %s", p->spec.path);
}

int program_start(struct agent *agent, const json_t *request, const struct program_owner *owner,
		  void *arg, struct program **ret, struct error *err)
{
	struct program *p = program_new(agent);
	int r;

	if (!p)
		return error_errno(err, -ENOMEM, "cannot start a program");
	p->owner = owner;
	p->arg = arg;
	r = runspec_parse(request, &p->spec, err);
	if (!r)
		r = program_spawn(p, err);
	if (r) {
		program_destroy(p);
		return r;
	}
	program_add(p);
	*ret = p;
	return 0;
}

pid_t program_pid(const struct program *p)
{
	return p->pid;
}

const char *program_path(const struct program *p)
{
	return p->spec.path;
}

const struct user *program_user(const struct program *p)
{
	return &p->spec.user;
}

uint64_t program_received(const struct program *p, bool *ended)
{
	*ended = p->in_ended;
	return p->received;
}

uint32_t program_credit(struct program *p)
{
	/* Nobody reads any more of it. */
	if (p->in_fd < 0)
		p->granted = p->received;
	else
		p->granted = p->consumed + PROTO_STDIN_WINDOW;
	return (uint32_t)(p->granted - p->received);
}

int program_start_plain(struct agent *agent, const char *path, struct error *err)
{
	struct program *p = program_new(agent);
	json_t *request = json_pack("{s:[s]}", "argv", path);
	int r = p && request ? runspec_parse(request, &p->spec, err)
			     : error_errno(err, -ENOMEM, "cannot start %s", path);

	json_decref(request);
	if (!r)
		r = spawn_plain(agent, &p->spec, &p->pid, err);
	if (!r)
		program_add(p);
	else if (p)
		program_destroy(p);
	return r;
}
