/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm: working inside virtual machines. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>

#include "agent/client.h"
#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "cli/exec-options.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "vms/control.h"
#include "vms/vms.h"

#define ESCAPE 0x1d /* Ctrl-] */

enum { OPT_KEEP = 100, OPT_DETACH };

/* -------- exec and shell -------- */

struct exec_call {
	struct exec_options o;
	const char *keep; /* the id of a task, or NULL */
	bool detach;
};

/* 0, OPTION_HELP, or -errno. */
static int parse_exec(struct option_parser *parser, struct exec_call *call, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		call->detach |= r == OPT_DETACH;
		if (r == OPT_KEEP)
			call->keep = value;
		else if (r != OPT_DETACH && (r = exec_option(&call->o, r, value, err)))
			return r;
	}
	if (!r && !parser->argc)
		r = error_set(err, -EINVAL, "give the name of a VM");
	if (!r && call->detach && !call->keep)
		r = error_set(err, -EINVAL, "--detach needs --keep ID, to come back to it");
	return r;
}

static int exec_in(const struct command *cmd, const char *name, const struct client_exec *exec)
{
	CLEANUP_CLOSE int fd = -1;
	struct error err;
	int code, r = fd = vms_agent(name, &err);

	if (r >= 0)
		r = client_exec(fd, exec, &code, &err);
	return r < 0 ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : code;
}

static int exec_call(const struct command *cmd, struct exec_call *call, int argc, char **argv)
{
	struct client_exec exec;

	if (call->detach && call->o.tty < 0)
		call->o.tty = 0;
	exec = exec_prepare(&call->o, argc, argv);
	return call->keep ? vm_task_run(cmd, argv[0], call->keep, call->detach, &exec)
			  : exec_in(cmd, argv[0], &exec);
}

static int run_exec(const struct command *cmd, int argc, char **argv)
{
	struct exec_call call = {.o.tty = -1};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_exec(&parser, &call, &err);
	if (!r && !cmd->stops_at_args && parser.argc > 1)
		r = error_set(&err, -EINVAL, "a shell takes no program (wisp vm exec does)");
	if (!r)
		r = exec_call(cmd, &call, parser.argc, parser.argv);
	else
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	args_done(&call.o.env);
	return r;
}

static const struct option_desc shell_options[] = {EXEC_OPTION_ROWS("guest", "the user's home", ""),
						   {0}};

static const struct option_desc exec_options[] = {
	EXEC_OPTION_ROWS("guest", "the user's home", ""),
	{OPT_KEEP, "keep", 'k', "ID",
	 "Let it go on when this command is gone: wisp vm attach NAME ID comes back to it", 0},
	{OPT_DETACH, "detach", 'd', NULL, "With --keep: leave it at once; it gets an empty input",
	 0},
	{0}};

const struct command cmd_vm_exec = {
	.name = "vm exec",
	.args = "NAME [--] [PROGRAM [ARGUMENT...]]",
	.summary = "Run a program in a virtual machine; without one, a shell",
	.details = "The program's input, output, errors and exit code are those of this command "
		   "(128 + N when signal N ended it); 126 when it could not be run. Signals are "
		   "passed on. A program that is kept goes on with its VM through checkpoints, "
		   "restores and migrations; it waits when megabytes of its output were not seen.",
	.options = exec_options,
	.stops_at_args = true,
	.complete = COMPLETE_VM,
	.run = run_exec,
};

const struct command cmd_vm_shell = {
	.name = "vm shell",
	.args = "NAME",
	.summary = "Open a login shell in a virtual machine",
	.options = shell_options,
	.complete = COMPLETE_VM,
	.run = run_exec,
};

/* -------- console -------- */

struct console {
	int fd, signals;
	struct termios saved;
	bool raw;
};

/* Passes what was typed on; -ECANCELED at the escape character. */
static int console_input(struct console *c)
{
	char buf[256], *escape;
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
	int r;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	if (!n)
		return -ECANCELED;
	escape = c->raw ? memchr(buf, ESCAPE, (size_t)n) : NULL;
	r = io_write_full(c->fd, buf, escape ? (size_t)(escape - buf) : (size_t)n);
	return r ? r : escape ? -ECANCELED : 0;
}

/* -ECANCELED when the VMM closes: the VM ended, or another console took over. */
static int console_output(struct console *c)
{
	char buf[4096];
	ssize_t n = read(c->fd, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : -EPIPE;
	return io_write_full(STDOUT_FILENO, buf, (size_t)n);
}

static int console_loop(struct console *c)
{
	struct pollfd p[] = {{.fd = STDIN_FILENO, .events = POLLIN},
			     {.fd = c->fd, .events = POLLIN},
			     {.fd = c->signals, .events = POLLIN}};
	int r = 0;

	while (!r) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			return errno == EINTR ? 0 : -errno;
		if (p[2].revents)
			return -ECANCELED;
		if (p[1].revents)
			r = console_output(c);
		if (!r && p[0].revents)
			r = console_input(c);
	}
	return r;
}

/* Whatever ends us but SIGKILL, the terminal is as it was. */
static int console_run(struct console *c)
{
	static const int ends[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
	struct termios raw;
	sigset_t set;
	int r;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
		sigaddset(&set, ends[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (c->signals < 0)
		return -errno;
	if (!tcgetattr(STDIN_FILENO, &c->saved)) {
		raw = c->saved;
		cfmakeraw(&raw);
		c->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	r = console_loop(c);
	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
	close(c->signals);
	return r;
}

static int run_console(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *dir = NULL;
	struct console c = {.fd = -1};
	struct option_parser parser;
	const char *value;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = option_next(&parser, &value, &err);
	if (r == OPTION_HELP)
		return 0;
	if (!r && parser.argc != 1)
		r = error_set(&err, -EINVAL, "give one VM");
	if (r)
		return cli_fail(cmd, EXIT_USAGE, &err);
	r = vms_dir(parser.argv[0], &dir, &err);
	if (!r)
		r = c.fd = control_console(dir, &err);
	if (r < 0)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	fprintf(stderr, "Console of %s; Ctrl-] leaves it.\n", parser.argv[0]);
	r = console_run(&c);
	close(c.fd);
	if (r == -EPIPE)
		fprintf(stderr, "\nThe console of %s was closed.\n", parser.argv[0]);
	if (r == -EPIPE || r == -ECANCELED)
		return 0;
	error_errno(&err, r, "console of %s", parser.argv[0]);
	return cli_fail(cmd, EXIT_FAILURE, &err);
}

const struct command cmd_vm_console = {
	.name = "vm console",
	.args = "NAME",
	.summary = "Use the serial console of a virtual machine",
	.details = "Shows the last 8 KiB first. Ctrl-] leaves it. One console at a time: a new one "
		   "takes over from the old.",
	.complete = COMPLETE_VM,
	.run = run_console,
};
