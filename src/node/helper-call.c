/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs of wisp-node-helper, from their start to their end. */

#include "node/helper-call.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "lib/process.h"

struct helper_call {
	struct helper_calls *calls;
	struct helper_call *next;
	const struct helper_ops *ops; /* NULL: nobody hears */
	void *arg;
	pid_t pid;
	int pidfd, said; /* -1: has ended */
	struct loop_source *on_end, *on_said;
	struct jsonline line;
	int status;
	bool told; /* done() */
};

static void call_free(struct helper_call *call)
{
	struct helper_call **at = &call->calls->first;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	loop_remove(&call->on_end);
	loop_remove(&call->on_said);
	cleanup_close_fd(&call->pidfd);
	cleanup_close_fd(&call->said);
	jsonline_done(&call->line);
	free(call);
}

/* What it said: {}, {"errno", "error"}, or nothing from one that stays and runs. */
static int result(struct helper_call *call, struct error *err)
{
	json_t *said = NULL;
	const char *reason;
	int r;

	if (jsonline_take(&call->line, &said, err))
		return call->ops->ended && call->pidfd >= 0
			       ? 0
			       : error_set(err, -ECHILD,
					   "wisp-node-helper ended without a word (status %d)",
					   call->status);
	r = -(int)json_integer_value(json_object_get(said, "errno"));
	reason = json_string_value(json_object_get(said, "error"));
	if (r)
		r = error_set(err, r < 0 ? r : -EPROTO, "%s", reason ? reason : "");
	json_decref(said);
	return r;
}

static void tell(struct helper_call *call)
{
	const struct helper_ops *ops = call->ops;
	struct error err = {""};
	int code = result(call, &err);
	void *arg = call->arg;

	call->told = true;
	if (call->pidfd < 0)
		call_free(call);
	else if (code)
		call->ops = NULL; /* its end is no news */
	ops->done(arg, code, err.text);
}

/* done() comes when it has said all and has ended, or stays. */
static void settle(struct helper_call *call)
{
	const struct helper_ops *ops = call->ops;
	bool ended = call->pidfd < 0;
	int status = call->status;
	void *arg = call->arg;

	if (call->said >= 0)
		return;
	if (ops && !call->told) {
		if (ended || ops->ended)
			tell(call);
		return;
	}
	if (!ended)
		return;
	call_free(call);
	if (ops)
		ops->ended(arg, status);
}

static void on_end(void *arg, uint32_t events)
{
	struct helper_call *call = arg;

	waitpid(call->pid, &call->status, 0);
	loop_remove(&call->on_end);
	close(take_fd(&call->pidfd));
	settle(call);
}

static void on_said(void *arg, uint32_t events)
{
	struct helper_call *call = arg;
	int r = jsonline_read(&call->line, call->said, JSONLINE_MAX);

	if (r == 0 || r == -EAGAIN || r == -EINTR)
		return;
	loop_remove(&call->on_said);
	close(take_fd(&call->said));
	settle(call);
}

/* A job may be longer than a pipe holds. */
static int job_fd(const json_t *job, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(job, JSON_COMPACT);
	CLEANUP_CLOSE int fd = memfd_create("job", MFD_CLOEXEC);

	if (!text || fd < 0 || io_write_full(fd, text, strlen(text)) || lseek(fd, 0, SEEK_SET))
		return error_errno(err, text && errno ? -errno : -ENOMEM, "cannot write a job");
	return take_fd(&fd);
}

static int spawn(struct helper_call *call, const json_t *job, int socket, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int in = job_fd(job, err);
	CLEANUP_CLOSE int out = -1;
	int pipes[2], fds[] = {in, -1, STDERR_FILENO, socket};
	const char *argv[2] = {NULL, NULL};
	/* What the next daemon ends must not be made by a job of this one afterwards. */
	struct process p = {
		.argv = argv, .fds = fds, .nfds = socket >= 0 ? 4 : 3, .die_with_parent = true};
	int r = in < 0 ? in : paths_program("wisp-node-helper", &program, err);

	if (r)
		return r;
	if (pipe2(pipes, O_CLOEXEC))
		return error_errno(err, -errno, "cannot hear the helper");
	call->said = pipes[0];
	fds[1] = out = pipes[1];
	argv[0] = program;
	r = process_start(&p, &call->pid, err);
	if (r)
		return r;
	call->pidfd = pidfd_open(call->pid, 0);
	return call->pidfd < 0 ? error_errno(err, -errno, "cannot watch the helper") : 0;
}

int helper_start(struct helper_calls *calls, const json_t *job, int socket,
		 const struct helper_ops *ops, void *arg, struct helper_call **ret,
		 struct error *err)
{
	struct helper_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return error_set(err, -ENOMEM, "out of memory");
	*call = (struct helper_call){.calls = calls,
				     .next = calls->first,
				     .ops = ops,
				     .arg = arg,
				     .pidfd = -1,
				     .said = -1};
	calls->first = call;
	r = spawn(call, job, socket, err);
	if (!r)
		r = loop_add_fd(calls->loop, call->pidfd, EPOLLIN, on_end, call, &call->on_end);
	if (!r)
		r = loop_add_fd(calls->loop, call->said, EPOLLIN, on_said, call, &call->on_said);
	if (r) {
		call_free(call);
		return r;
	}
	if (ret)
		*ret = call;
	return 0;
}

pid_t helper_pid(const struct helper_call *call)
{
	return call->pid;
}

void helper_forget(struct helper_call **call)
{
	if (*call)
		(*call)->ops = NULL;
	*call = NULL;
}

void helper_kill(struct helper_call *call)
{
	if (call->pidfd >= 0)
		pidfd_send_signal(call->pidfd, SIGKILL, NULL, 0);
	if (call->said >= 0) {
		loop_remove(&call->on_said);
		close(take_fd(&call->said));
	}
	settle(call);
}

void helper_calls_done(struct helper_calls *calls)
{
	while (calls->first)
		call_free(calls->first);
}
