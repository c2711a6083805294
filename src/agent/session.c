/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to the agent: HELLO, one request, its answer, the end. */

#include "agent/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/shares.h"
#include "agent/task.h"
#include "agent/user.h"
#include "agent/volumes.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define OUTPUT_LIMIT (2 * PROTO_MAX_PAYLOAD) /* output waiting for the client before we pause */
#define CLOSE_NS 5000000000ULL		     /* for the client to close after our last frame */

enum session_state {
	SESSION_HELLO,
	SESSION_REQUEST,
	SESSION_GIVEN,	 /* the user has it */
	SESSION_CLOSING, /* the last frame is in the output */
	SESSION_CLOSED,	 /* our direction is shut down */
};

struct session {
	struct agent *agent;
	struct session *next;
	enum session_state state;
	int fd;
	uid_t caller;
	struct buffer in, out;
	struct json_collector request;
	const struct session_user *user;
	void *arg; /* of its functions */
	struct loop_source *source, *timer;
	uint32_t events; /* that the source waits for */
};

struct buffer *session_output(struct session *s)
{
	return &s->out;
}

bool session_full(const struct session *s)
{
	return buffer_used(&s->out) >= OUTPUT_LIMIT;
}

void session_give(struct session *s, const struct session_user *user, void *arg)
{
	s->user = user;
	s->arg = arg;
	s->state = SESSION_GIVEN;
}

static void session_gone(struct session *s)
{
	const struct session_user *user = s->user;

	s->user = NULL;
	if (user)
		user->gone(s->arg);
}

static void session_destroy(struct session *s)
{
	struct session **p = &s->agent->sessions;

	while (*p && *p != s)
		p = &(*p)->next;
	if (*p)
		*p = s->next;
	session_gone(s);
	loop_remove(&s->source);
	loop_remove(&s->timer);
	close(s->fd);
	buffer_done(&s->in);
	buffer_done(&s->out);
	buffer_done(&s->request.text);
	free(s);
}

void sessions_done(struct agent *agent)
{
	while (agent->sessions)
		session_destroy(agent->sessions);
}

static void on_close_timeout(void *arg)
{
	session_destroy(arg);
}

void session_finish(struct session *s)
{
	s->user = NULL;
	s->state = SESSION_CLOSING;
	if (loop_add_timer(s->agent->loop, on_close_timeout, s, &s->timer))
		log_warn(&s->agent->log, "session", "no timer: waits for the client to close");
	session_send(s);
}

void session_fail(struct session *s, int code, const char *text)
{
	log_debug(&s->agent->log, "session", "request failed: %s", text);
	/* Without memory for the last frame the client sees the connection end. */
	if (frame_append_error(&s->out, code, text))
		log_warn(&s->agent->log, "session", "no memory for an error frame");
	session_finish(s);
}

/* Only changes what is waited for: may be called from everywhere, frees nothing. */
void session_send(struct session *s)
{
	bool more = buffer_used(&s->out) || s->state == SESSION_CLOSING;
	uint32_t events = EPOLLIN | (more ? EPOLLOUT : 0);

	if (events != s->events && !loop_modify_fd(s->source, events))
		s->events = events;
}

int session_result(struct session *s, json_t *result, struct error *err)
{
	int r = result ? frame_append_json(&s->out, FRAME_RESULT, result) : -ENOMEM;

	json_decref(result);
	if (r)
		return error_errno(err, r, "cannot send the result");
	session_finish(s);
	return 0;
}

static int op_ping(struct session *s, const json_t *request, struct error *err)
{
	return session_result(s, json_object(), err);
}

static int op_facts(struct session *s, const json_t *request, struct error *err)
{
	return session_result(s, facts_collect(s->agent), err);
}

static int op_configure(struct session *s, const json_t *request, struct error *err)
{
	const json_t *peers = json_object_get(request, "peers");
	const json_t *shares = json_object_get(request, "shares");
	const json_t *volumes = json_object_get(request, "volumes");
	int r = configure_apply(request, err);

	if (!r && peers)
		r = network_join(s->agent, json_string_value(peers), err);
	if (!r && shares)
		r = shares_set(shares, &s->agent->shares, err);
	if (!r && volumes)
		r = volumes_mount(volumes, err);
	return r ? r : session_result(s, json_object(), err);
}

static int op_exec(struct session *s, const json_t *request, struct error *err)
{
	return session_exec(s->agent, s, request, err);
}

static int op_task_start(struct session *s, const json_t *request, struct error *err)
{
	return task_start(s->agent, s, s->caller, request, err);
}

static int op_task_attach(struct session *s, const json_t *request, struct error *err)
{
	struct task *task;
	int r = task_find(s->agent, s->caller, request, &task, err);

	return r ? r : task_attach(task, s, request, err);
}

static int op_task_list(struct session *s, const json_t *request, struct error *err)
{
	return session_result(s, task_list(s->agent, s->caller), err);
}

static int op_task_signal(struct session *s, const json_t *request, struct error *err)
{
	struct task *task;
	int r = task_find(s->agent, s->caller, request, &task, err);

	if (!r)
		r = task_signal(task, request, err);
	return r ? r : session_result(s, json_object(), err);
}

static int op_task_remove(struct session *s, const json_t *request, struct error *err)
{
	struct task *task;
	int r = task_find(s->agent, s->caller, request, &task, err);

	if (!r)
		r = task_remove(task, request, err);
	return r ? r : session_result(s, json_object(), err);
}

/* The copy has a process of its own, with the user's rights and blocking files. */
static int op_copy(struct session *s, const json_t *request, struct error *err)
{
	int r;

	if (buffer_used(&s->in) || buffer_used(&s->out))
		return error_set(err, -EPROTO, "the tree was sent before it was asked for");
	r = transfer_start(s->agent, s->fd, request, err);
	if (!r)
		s->state = SESSION_CLOSED;
	return r;
}

static int op_poweroff(struct session *s, const json_t *request, struct error *err)
{
	int r = shutdown_request(s->agent, SHUTDOWN_POWEROFF, err);

	return r ? r : session_result(s, json_object(), err);
}

static int op_reboot(struct session *s, const json_t *request, struct error *err)
{
	int r = shutdown_request(s->agent, SHUTDOWN_REBOOT, err);

	return r ? r : session_result(s, json_object(), err);
}

/* What others than root may ask for; tasks look at their owners themselves. */
enum op_for { FOR_ROOT, FOR_ALL, FOR_SELF };

static const struct op {
	const char *name;
	int (*run)(struct session *s, const json_t *request, struct error *err);
	enum op_for whom;
} ops[] = {
	{"ping", op_ping, FOR_ALL},
	{"facts", op_facts, FOR_ALL},
	{"configure", op_configure, FOR_ROOT},
	{"exec", op_exec, FOR_SELF},
	{"task-start", op_task_start, FOR_SELF},
	{"task-attach", op_task_attach, FOR_ALL},
	{"task-list", op_task_list, FOR_ALL},
	{"task-signal", op_task_signal, FOR_ALL},
	{"task-remove", op_task_remove, FOR_ALL},
	{"copy-in", op_copy, FOR_SELF},
	{"copy-out", op_copy, FOR_SELF},
	{"reboot", op_reboot, FOR_ROOT},
	{"poweroff", op_poweroff, FOR_ROOT},
};

static int check_caller(const struct session *s, const struct op *op, const json_t *request,
			struct error *err)
{
	const json_t *user = json_object_get(request, "user");
	struct user found;
	int r;

	if (!s->caller || op->whom == FOR_ALL)
		return 0;
	if (op->whom == FOR_ROOT)
		return error_set(err, -EACCES, "user %u may not ask for %s", s->caller, op->name);
	if (!user || json_object_get(request, "group"))
		return error_set(err, -EACCES, "user %u may ask for %s as that user only",
				 s->caller, op->name);
	r = user_find(user, NULL, &found, err);
	if (!r && found.uid != s->caller)
		r = error_set(err, -EACCES, "user %u may not ask for %s as user %u", s->caller,
			      op->name, found.uid);
	return r;
}

static int request_run(struct session *s, const json_t *request, struct error *err)
{
	const char *op = json_string_value(json_object_get(request, "op"));

	if (!op)
		return error_set(err, -EINVAL, "the request has no \"op\"");
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		int r;

		if (strcmp(op, ops[i].name))
			continue;
		r = check_caller(s, &ops[i], request, err);
		return r ? r : ops[i].run(s, request, err);
	}
	return error_set(err, -ENOSYS, "this agent does not know \"%s\"", op);
}

static int on_hello(struct session *s, const struct frame *frame, struct error *err)
{
	int r = frame_check_hello(frame, err);

	if (!r)
		s->state = SESSION_REQUEST;
	return r;
}

static int on_request(struct session *s, const struct frame *frame, struct error *err)
{
	json_t *request = NULL;
	int r;

	if (frame->type != FRAME_REQUEST)
		return error_set(err, -EPROTO, "a request was due, got frame %d", (int)frame->type);
	r = json_collect(&s->request, frame, &request, err);
	if (r <= 0)
		return r;
	/* The copy hands the connection over: nothing may be left in the buffer. */
	frame_consume(&s->in, frame);
	r = request_run(s, request, err);
	json_decref(request);
	return r ? r : 1;
}

/* Handles the frames that are there. */
static void session_frames(struct session *s)
{
	struct error err;
	struct frame frame;
	int r = 0;

	while (r >= 0 && s->state < SESSION_CLOSING) {
		r = frame_parse(&s->in, &frame, &err);
		if (!r)
			return;
		if (r > 0 && s->state == SESSION_HELLO)
			r = on_hello(s, &frame, &err);
		else if (r > 0 && s->state == SESSION_REQUEST)
			r = on_request(s, &frame, &err);
		else if (r > 0)
			r = s->user->frame(s->arg, &frame, &err);
		if (!r)
			frame_consume(&s->in, &frame);
	}
	if (r < 0) {
		session_gone(s);
		session_fail(s, r, err.text);
	}
}

/* Returns false when the client has gone. */
static bool session_read(struct session *s)
{
	uint8_t *p = buffer_reserve(&s->in, PROTO_HEADER + PROTO_MAX_PAYLOAD);
	ssize_t n;

	if (!p)
		return false;
	n = recv(s->fd, p, PROTO_HEADER + PROTO_MAX_PAYLOAD, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	if (s->state >= SESSION_CLOSING)
		return true; /* discarded */
	buffer_commit(&s->in, (size_t)n);
	session_frames(s);
	return true;
}

static bool session_write(struct session *s)
{
	while (buffer_used(&s->out)) {
		/* Asked each time: resuming may have filled it again. */
		bool was_full = session_full(s);
		ssize_t n =
			send(s->fd, s->out.data + s->out.start, buffer_used(&s->out), MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		buffer_consume(&s->out, (size_t)n);
		if (was_full && s->user && s->user->resume && !session_full(s))
			s->user->resume(s->arg);
	}
	if (s->state == SESSION_CLOSING) {
		s->state = SESSION_CLOSED;
		shutdown(s->fd, SHUT_WR);
		if (s->timer)
			loop_set_timer(s->timer, CLOSE_NS, 0);
	}
	session_send(s);
	return true;
}

static void on_event(void *arg, uint32_t events)
{
	struct session *s = arg;
	bool alive = true;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		alive = session_read(s);
	if (alive && (events & EPOLLOUT || buffer_used(&s->out)))
		alive = session_write(s);
	/* The copy's process has the connection now. */
	if (!alive || (s->state == SESSION_CLOSED && !s->timer))
		session_destroy(s);
}

int session_create(struct agent *agent, int fd, uid_t caller)
{
	struct session *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (s) {
		s->agent = agent;
		s->fd = fd;
		s->caller = caller;
		r = frame_append_hello(&s->out);
	}
	if (!r)
		r = loop_add_fd(agent->loop, fd, EPOLLIN, on_event, s, &s->source);
	if (r) {
		if (s)
			buffer_done(&s->out);
		free(s);
		close(fd);
		return r;
	}
	s->events = EPOLLIN;
	s->next = agent->sessions;
	agent->sessions = s;
	session_send(s);
	return 0;
}
