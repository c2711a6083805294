/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers: started, listened to in case they fail, and ended. */

#include "node/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "lib/process.h"
#include "node/nodename.h"

#define END_NS (3 * 1000000000ull) /* that a child has to end by itself */

struct launch {
	struct launch *next;
	struct launches *of;
	launch_fn *fn; /* NULL: nobody wants to know */
	void *arg;
	pid_t pid;
	int pidfd, theirs, errors;
	struct loop_source *on_end, *on_hangup, *on_errors, *timer;
	char said[200]; /* the end of what it wrote to its standard error */
};

struct launches {
	struct loop *loop;
	char *command;
	struct launch *first;
};

int launches_create(struct loop *loop, const char *command, struct launches **ret,
		    struct error *err)
{
	struct launches *l;

	if (!command[strspn(command, " ")])
		return error_set(err, -EINVAL,
				 "--launcher: name a command, say \"ssh -o BatchMode=yes\"");
	l = calloc(1, sizeof(*l));
	if (l)
		l->command = strdup(command);
	if (!l || !l->command) {
		free(l);
		return error_set(err, -ENOMEM, "out of memory");
	}
	l->loop = loop;
	*ret = l;
	return 0;
}

const char *launches_command(const struct launches *l)
{
	return l->command;
}

/* -------- its end -------- */

static void close_all(struct launch *l)
{
	loop_remove(&l->on_end);
	loop_remove(&l->on_hangup);
	loop_remove(&l->on_errors);
	loop_remove(&l->timer);
	cleanup_close_fd(&l->pidfd);
	cleanup_close_fd(&l->theirs);
	cleanup_close_fd(&l->errors);
}

static void remove_launch(struct launch *l)
{
	struct launch **at = &l->of->first;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	close_all(l);
	free(l);
}

void launches_destroy(struct launches *l)
{
	if (!l)
		return;
	while (l->first) {
		kill(l->first->pid, SIGKILL);
		process_wait(l->first->pid, &(int){0});
		remove_launch(l->first);
	}
	free(l->command);
	free(l);
}

void launch_forget(struct launch *l)
{
	if (l)
		l->fn = NULL;
}

/* Keeps the end of what comes, as one line. */
static void on_errors(void *arg, uint32_t events)
{
	struct launch *l = arg;
	size_t have = strlen(l->said), room = sizeof(l->said) - 1;
	char text[sizeof(l->said) - 1];
	ssize_t n = read(l->errors, text, sizeof(text));

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			loop_remove(&l->on_errors);
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ')
			text[i] = ' ';
	if (have + (size_t)n > room) {
		size_t drop = have + (size_t)n - room;

		memmove(l->said, l->said + drop, have - drop);
		have -= drop;
	}
	memcpy(l->said + have, text, (size_t)n);
	l->said[have + (size_t)n] = 0;
}

static void on_end(void *arg, uint32_t events)
{
	struct launch *l = arg;
	launch_fn *fn = l->fn;
	void *to = l->arg;
	struct error err;
	int status = 0;
	size_t n;

	on_errors(l, 0);
	process_wait(l->pid, &status);
	n = strlen(l->said);
	while (n && l->said[n - 1] == ' ')
		l->said[--n] = 0;
	error_set(&err, 0, "the launcher ended with code %d%s%s", process_exit_code(status),
		  n ? ": " : "", l->said + strspn(l->said, " "));
	remove_launch(l);
	if (fn)
		fn(to, err.text);
}

static void on_timer(void *arg)
{
	struct launch *l = arg;

	kill(l->pid, SIGKILL);
}

/* Our end is closed. */
static void on_hangup(void *arg, uint32_t events)
{
	struct launch *l = arg;

	loop_remove(&l->on_hangup);
	loop_set_timer(l->timer, END_NS, 0);
}

/* -------- its beginning -------- */

/* The host in place of "%h"; true: there was one. */
static bool add_word(struct args *args, const char *word, size_t n, const char *host)
{
	const char *mark = memmem(word, n, "%h", 2);

	if (!mark) {
		args_add(args, "%.*s", (int)n, word);
		return false;
	}
	args_add(args, "%.*s%s%.*s", (int)(mark - word), word, host, (int)(word + n - mark - 2),
		 mark + 2);
	return true;
}

static void make_argv(const struct launches *l, const struct nodename *node, struct args *args)
{
	bool named = false;

	for (const char *p = l->command + strspn(l->command, " "); *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		named |= add_word(args, p, n, node->host);
		p += n;
	}
	if (!named) {
		args_add(args, "%s", node->host);
		args_add(args, "wispd");
	}
	args_add(args, "--pipe");
	args_add(args, "--name");
	args_add(args, "%s", node->name);
}

static int run(struct launch *l, const struct nodename *node, int errors, struct error *err)
{
	struct args args = {0};
	int fds[3] = {l->theirs, l->theirs, errors}, r;
	struct process process = {
		.fds = fds, .nfds = 3, .die_with_parent = true, .new_session = true};

	make_argv(l->of, node, &args);
	process.argv = (const char *const *)args.v;
	r = args.failed ? error_set(err, -ENOMEM, "out of memory")
			: process_start(&process, &l->pid, err);
	args_done(&args);
	return r;
}

static int watch(struct launch *l, struct error *err)
{
	struct loop *loop = l->of->loop;
	int r;

	l->pidfd = (int)syscall(SYS_pidfd_open, l->pid, 0);
	r = l->pidfd < 0 ? -errno : loop_add_fd(loop, l->pidfd, EPOLLIN, on_end, l, &l->on_end);
	if (!r)
		r = loop_add_fd(loop, l->theirs, 0, on_hangup, l, &l->on_hangup);
	if (!r)
		r = loop_add_fd(loop, l->errors, EPOLLIN, on_errors, l, &l->on_errors);
	if (!r)
		r = loop_add_timer(loop, on_timer, l, &l->timer);
	return r ? error_errno(err, r, "a launcher on the event loop") : 0;
}

/* Our copy of the child's end stays until the child has ended: its reason comes before the end. */
static int begin(struct launch *l, const struct nodename *node, int *ours, struct error *err)
{
	CLEANUP_CLOSE int errors = -1;
	int s[2], e[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s))
		return error_errno(err, -errno, "cannot make a connection");
	*ours = s[0];
	l->theirs = s[1];
	if (pipe2(e, O_CLOEXEC))
		return error_errno(err, -errno, "cannot make a pipe");
	l->errors = e[0];
	errors = e[1];
	if (fcntl(e[0], F_SETFL, O_NONBLOCK))
		return error_errno(err, -errno, "cannot make a pipe");
	r = run(l, node, errors, err);
	if (r)
		return r;
	r = watch(l, err);
	if (r) {
		kill(l->pid, SIGKILL);
		process_wait(l->pid, &(int){0});
	}
	return r;
}

int launch_start(struct launches *of, const struct nodename *node, launch_fn *fn, void *arg,
		 int *fd, struct launch **ret, struct error *err)
{
	struct launch *l = calloc(1, sizeof(*l));
	CLEANUP_CLOSE int ours = -1;
	int r;

	if (!l)
		return error_set(err, -ENOMEM, "out of memory");
	*l = (struct launch){.next = of->first,
			     .of = of,
			     .fn = fn,
			     .arg = arg,
			     .pidfd = -1,
			     .theirs = -1,
			     .errors = -1};
	of->first = l;
	r = begin(l, node, &ours, err);
	if (r) {
		remove_launch(l);
		return r;
	}
	*fd = take_fd(&ours);
	*ret = l;
	return 0;
}
