/* SPDX-License-Identifier: Apache-2.0 */
/* Children that wait in the part's place. */

#include "part/errand.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/loop.h"
#include "lib/process.h"

#define TALK_FD 3
#define WORDS_MAX 4096 /* bytes of standard error that are looked at */
#define MS 1000000ull

struct errands {
	struct loop *loop;
	struct errand *first;
};

struct errand {
	struct errand *next;
	struct errands *all;
	const struct errand_ops *ops;
	void *arg;
	pid_t pid;
	int pidfd, talk, words; /* words: what it printed on standard error */
	struct loop_source *end_source, *talk_source, *patience;
	struct jsonline line;
	json_t *last; /* what it said at its end */
};

/* The last line that was printed there. */
static void last_words(int fd, struct error *ret)
{
	char text[WORDS_MAX + 1];
	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, text, WORDS_MAX, size > WORDS_MAX ? size - WORDS_MAX : 0);
	char *start;

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n < 0 ? 0 : n] = 0;
	start = strrchr(text, '\n');
	error_set(ret, 0, "%s", start ? start + 1 : text);
}

/* -------- in the child -------- */

/* Its descriptors: /dev/null, the words, the socket, and nothing else of the part's. */
static int take_fds(int talk, int words)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	talk = fcntl(talk, F_DUPFD, 10);
	words = fcntl(words, F_DUPFD, 10);
	null = fcntl(null, F_DUPFD, 10);
	if (talk < 0 || words < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(words, 2) < 0 || dup2(talk, TALK_FD) < 0)
		return -errno;
	fcntl(TALK_FD, F_SETFD, FD_CLOEXEC);
	close_range(TALK_FD + 1, UINT_MAX, 0);
	return 0;
}

static void take_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static json_t *describe_end(int code, json_t *value, const struct error *err)
{
	json_t *end = json_pack("{s:b, s:O*}", "done", 1, "value", value);

	if (code) {
		json_object_set_new(end, "errno", json_integer(-code));
		json_object_set_new(end, "error", json_string(err->text));
	}
	return end;
}

static void __attribute__((noreturn))
run(pid_t part, int talk, int words, errand_fn *fn, void *fn_arg)
{
	struct error err = {"out of memory"};
	json_t *value = NULL, *end;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != part || take_fds(talk, words))
		_exit(127);
	take_signals();
	r = fn(TALK_FD, fn_arg, &value, &err);
	end = describe_end(r, value, &err);
	r = end ? jsonline_write(TALK_FD, end) : -ENOMEM;
	_exit(r ? 126 : 0);
}

int errand_become(int talk, const char *const *argv, struct error *err)
{
	signal(SIGPIPE, SIG_DFL);
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || dup2(talk, 0) < 0 || dup2(talk, 1) < 0)
		return error_errno(err, -errno, "cannot run %s", argv[0]);
	execvp(argv[0], (char *const *)argv);
	return error_errno(err, -errno, "cannot run %s", argv[0]);
}

static int ask_for_end(void *arg)
{
	return prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 ? -errno : 0;
}

/* Passes on what we are told until it has ended. */
static int attend(pid_t pid, const sigset_t *signals, int *status)
{
	pid_t ended;

	while ((ended = waitpid(pid, status, WNOHANG)) == 0) {
		int signo = sigwaitinfo(signals, NULL);

		if (signo == SIGTERM)
			kill(pid, SIGTERM);
	}
	return ended < 0 ? -errno : 0;
}

int errand_run(const char *const *argv, char **out, struct error *err)
{
	CLEANUP_CLOSE int output = memfd_create("output", MFD_CLOEXEC);
	const int fds[] = {-1, output, STDERR_FILENO};
	const struct process process = {
		.argv = argv, .fds = fds, .nfds = ARRAY_SIZE(fds), .in_child = ask_for_end};
	sigset_t signals;
	int r, status = 0;
	off_t size;
	pid_t pid;

	if (output < 0)
		return error_errno(err, -errno, "cannot run %s", argv[0]);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	r = process_start(&process, &pid, err);
	if (!r)
		r = attend(pid, &signals, &status);
	if (r)
		return r;
	size = lseek(output, 0, SEEK_END);
	*out = calloc(1, (size_t)size + 1);
	if (!*out || io_pread_full(output, *out, (size_t)size, 0))
		return error_set(err, -ENOMEM, "out of memory");
	if (status)
		last_words(STDERR_FILENO, err);
	return process_exit_code(status);
}

/* -------- in the part -------- */

static void errand_free(struct errand *e)
{
	struct errand **at = &e->all->first;

	while (*at && *at != e)
		at = &(*at)->next;
	if (*at)
		*at = e->next;
	loop_remove(&e->end_source);
	loop_remove(&e->talk_source);
	loop_remove(&e->patience);
	cleanup_close_fd(&e->pidfd);
	cleanup_close_fd(&e->talk);
	cleanup_close_fd(&e->words);
	jsonline_done(&e->line);
	json_decref(e->last);
	free(e);
}

static void hear(struct errand *e, json_t *message)
{
	int fd = jsonline_take_fd(&e->line);

	if (json_is_true(json_object_get(message, "done"))) {
		json_decref(e->last);
		e->last = json_incref(message);
	} else if (e->ops->said) {
		e->ops->said(e->arg, message, take_fd(&fd));
	}
	cleanup_close_fd(&fd);
}

/* What has come. -EAGAIN: all of it; else nothing more will. */
static int listen_now(struct errand *e)
{
	json_t *message;
	int r = jsonline_receive(&e->line, e->talk, ERRAND_LINE_MAX);

	if (r < 0)
		return r;
	while ((r = jsonline_take(&e->line, &message, NULL)) == 0) {
		hear(e, message);
		json_decref(message);
	}
	return r;
}

static void on_talk(void *arg, uint32_t events)
{
	struct errand *e = arg;
	int r = listen_now(e);

	if (r < 0 && r != -EAGAIN)
		loop_remove(&e->talk_source);
}

/* How it ended: what it said of that, else what the kernel says. */
static void conclude(struct errand *e, int status, struct error *err, struct errand_end *ret)
{
	const char *error = json_string_value(json_object_get(e->last, "error"));
	int code = (int)json_integer_value(json_object_get(e->last, "errno"));

	*ret = (struct errand_end){.status = status, .reason = err->text};
	if (e->last) {
		ret->code = -code;
		ret->reason = error ? error : "";
		ret->value = json_object_get(e->last, "value");
		return;
	}
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	ret->code = -ECHILD;
	last_words(e->words, err);
	if (!*err->text && WIFSIGNALED(status))
		error_set(err, 0, "ended by signal %d (%s)", WTERMSIG(status),
			  strsignal(WTERMSIG(status)));
	else if (!*err->text)
		error_set(err, 0, "exit code %d", process_exit_code(status));
}

static void on_end(void *arg, uint32_t events)
{
	struct errand *e = arg;
	const struct errand_ops *ops = e->ops;
	void *ops_arg = e->arg;
	struct error err = {""};
	struct errand_end end;
	json_t *last;
	int status = 0;
	char byte;

	if (waitpid(e->pid, &status, WNOHANG) != e->pid)
		return;
	/* The socket has all that it said, whoever else holds its other end. */
	while (e->talk_source && recv(e->talk, &byte, 1, MSG_PEEK) > 0)
		on_talk(e, EPOLLIN);
	conclude(e, status, &err, &end);
	last = json_incref(e->last);
	errand_free(e);
	ops->done(ops_arg, &end);
	json_decref(last);
}

static void on_patience(void *arg)
{
	struct errand *e = arg;

	kill(e->pid, SIGKILL);
}

static int watch(struct errand *e)
{
	struct loop *loop = e->all->loop;
	int r = loop_add_fd(loop, e->talk, EPOLLIN, on_talk, e, &e->talk_source);

	if (!r)
		r = loop_add_fd(loop, e->pidfd, EPOLLIN, on_end, e, &e->end_source);
	return r ? r : loop_add_timer(loop, on_patience, e, &e->patience);
}

/* The child, and what we have of it. */
static int start(struct errand *e, errand_fn *fn, void *fn_arg)
{
	pid_t part = getpid();
	int pair[2];

	e->words = memfd_create("errand", MFD_CLOEXEC);
	if (e->words < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	e->talk = pair[0];
	e->pid = fork();
	if (!e->pid)
		run(part, pair[1], e->words, fn, fn_arg);
	close(pair[1]);
	if (e->pid < 0)
		return -errno;
	e->pidfd = pidfd_open(e->pid, 0);
	if (e->pidfd < 0 || fcntl(e->talk, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return watch(e);
}

int errand_start(struct errands *errands, const struct errand_ops *ops, void *arg, errand_fn *fn,
		 void *fn_arg, struct errand **ret, struct error *err)
{
	struct errand *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return error_set(err, -ENOMEM, "out of memory");
	*e = (struct errand){.next = errands->first,
			     .all = errands,
			     .ops = ops,
			     .arg = arg,
			     .pidfd = -1,
			     .talk = -1,
			     .words = -1};
	errands->first = e;
	r = start(e, fn, fn_arg);
	if (r) {
		if (e->pid > 0) {
			kill(e->pid, SIGKILL);
			waitpid(e->pid, NULL, 0);
		}
		errand_free(e);
		return error_errno(err, r, "cannot start a process");
	}
	if (ret)
		*ret = e;
	return 0;
}

int errand_tell(struct errand *e, const json_t *message)
{
	return jsonline_write(e->talk, message);
}

void errand_cancel(struct errand *e, unsigned patience_ms)
{
	kill(e->pid, SIGTERM);
	loop_set_timer(e->patience, patience_ms * MS, 0);
}

int errands_create(struct loop *loop, struct errands **ret)
{
	struct errands *errands = calloc(1, sizeof(*errands));

	if (!errands)
		return -ENOMEM;
	errands->loop = loop;
	*ret = errands;
	return 0;
}

void errands_destroy(struct errands *errands)
{
	while (errands && errands->first) {
		struct errand *e = errands->first;

		kill(e->pid, SIGKILL);
		waitpid(e->pid, NULL, 0);
		errand_free(e);
	}
	free(errands);
}
