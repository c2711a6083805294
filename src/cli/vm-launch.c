/* SPDX-License-Identifier: Apache-2.0 */
/* wisp at another node, by a launcher. */

#include "cli/vm-launch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cli/cmd-vm-mover.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"
#include "vms/record.h"

#define LINE_MAX_BYTES (1024u * 1024)
#define LOOK_MS 100
#define END_PATIENCE_NS 20000000000ULL

/* The word with "%n" replaced. Returns whether there was one. */
static bool add_word(struct args *args, const char *word, size_t n, const char *node)
{
	bool replaced = false;

	args_add(args, "%s", "");
	for (size_t i = 0; i < n; i++) {
		if (i + 1 < n && word[i] == '%' && word[i + 1] == 'n') {
			args_extend(args, "%s", node);
			replaced = true;
			i++;
		} else {
			args_extend(args, "%c", word[i]);
		}
	}
	return replaced;
}

static int check_words(const char *node, const char *wisp, struct error *err)
{
	/* A launcher may give them to a shell, or take them for options. */
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789._-+/@:=,%";

	if (!*node || *node == '-' || node[strspn(node, plain)])
		return error_set(err, -EINVAL, "\"%s\" is not the name of a node", node);
	if (wisp[strspn(wisp, plain)])
		return error_set(err, -EINVAL,
				 "wisp's path \"%s\" has characters that a shell takes otherwise: "
				 "--remote-wisp names another",
				 wisp);
	return 0;
}

static int command_line(const char *launcher, const char *node, const char *wisp, struct args *args,
			struct error *err)
{
	char self[PATH_MAX] = "";
	bool replaced = false;
	int r;

	if (!wisp && readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return error_errno(err, -errno, "cannot find our own path");
	wisp = wisp ? wisp : self;
	r = check_words(node, wisp, err);
	for (const char *w = launcher + strspn(launcher, " "); !r && *w; w += strspn(w, " ")) {
		size_t n = strcspn(w, " ");

		replaced |= add_word(args, w, n, node);
		w += n;
	}
	if (!r && !args->n)
		r = error_set(err, -EINVAL, "the launcher is empty");
	if (!replaced)
		args_add(args, "%s", node);
	args_add(args, "%s", wisp);
	args_add(args, "vm");
	args_add(args, "receive");
	args_add(args, "--arranged");
	return r || !args->failed ? r : error_errno(err, -ENOMEM, "cannot start the launcher");
}

/* ^C is for us: we tell the other side. */
static int ignore_interrupt(void *arg)
{
	return signal(SIGINT, SIG_IGN) == SIG_ERR ? -errno : 0;
}

int launch_start(const char *launcher, const char *node, const char *wisp, struct launch *ret,
		 struct error *err)
{
	__attribute__((cleanup(args_done))) struct args args = {0};
	CLEANUP_CLOSE int ours = -1;
	CLEANUP_CLOSE int theirs = -1;
	struct process process = {.in_child = ignore_interrupt, .nfds = 3};
	int pair[2], fds[3], r = command_line(launcher, node, wisp, &args, err);

	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "cannot start the launcher");
	ours = pair[0];
	theirs = pair[1];
	fds[0] = fds[1] = theirs;
	fds[2] = STDERR_FILENO;
	process.fds = fds;
	process.argv = (const char *const *)args.v;
	*ret = (struct launch){.node = node};
	r = process_start(&process, &ret->pid, err);
	if (!r)
		ret->fd = take_fd(&ours);
	return r;
}

int launch_send(struct launch *l, const json_t *message, struct error *err)
{
	int r = jsonline_write(l->fd, message);

	/* It has ended: its exit code says more. */
	if (r == -EPIPE || r == -ECONNRESET)
		return launch_receive(l, NULL, err);
	return r ? error_errno(err, r, "cannot talk to node %s", l->node) : 0;
}

int launch_read(struct jsonline *line, int fd, json_t **ret, struct error *err)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	int r = jsonline_take(line, ret, err);

	while (r == -EAGAIN) {
		if (vm_interrupted())
			return error_set(err, -ECANCELED, "interrupted");
		if (poll(&ready, 1, LOOK_MS) <= 0)
			continue;
		r = jsonline_read(line, fd, LINE_MAX_BYTES);
		if (r < 0 && r != -EAGAIN && r != -EINTR)
			return error_errno(err, r, "no message");
		r = jsonline_take(line, ret, err);
	}
	return r;
}

/* It ended without a word. */
static int explain_end(struct launch *l, struct error *err)
{
	int status = 0, code;

	close(l->fd);
	l->fd = -1;
	process_wait(l->pid, &status);
	l->pid = 0;
	code = process_exit_code(status);
	if (code == 126 || code == 127)
		return error_set(err, -ENOENT,
				 "node %s cannot run wisp there (exit code %d): --remote-wisp says "
				 "where it is",
				 l->node, code);
	return error_set(err, -ECONNABORTED,
			 "the launcher of node %s ended with exit code %d before an answer came",
			 l->node, code);
}

int launch_receive(struct launch *l, json_t **ret, struct error *err)
{
	json_t *answer = NULL;
	int r = l->fd < 0 ? -EPIPE : launch_read(&l->line, l->fd, &answer, err);

	if (r == -EPIPE || r == -ECONNRESET)
		return l->pid ? explain_end(l, err) : r;
	if (r)
		return r;
	if (!json_is_true(json_object_get(answer, "ok")))
		r = error_set(err, -EREMOTEIO, "node %s: %s", l->node,
			      *record_text(answer, "error") ? record_text(answer, "error")
							    : "refused without a reason");
	if (!r && ret)
		*ret = json_incref(answer);
	json_decref(answer);
	return r;
}

void launch_end(struct launch *l)
{
	uint64_t end = io_now_ns() + END_PATIENCE_NS;
	int status;

	/* Only our end of the conversation: what it still says is not lost. */
	if (l->fd >= 0)
		shutdown(l->fd, SHUT_WR);
	while (l->pid && waitpid(l->pid, &status, WNOHANG) == 0) {
		if (io_now_ns() > end) {
			kill(l->pid, SIGKILL);
			process_wait(l->pid, &status);
			break;
		}
		poll(NULL, 0, LOOK_MS / 5);
	}
	l->pid = 0;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	jsonline_done(&l->line);
}
