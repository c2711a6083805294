/* SPDX-License-Identifier: Apache-2.0 */
/* The options of commands that run a program elsewhere. */

#include "cli/exec-options.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/error.h"

int exec_option(struct exec_options *o, int id, const char *value, struct error *err)
{
	switch (id) {
	case EXEC_OPT_USER:
		o->user = value;
		return 0;
	case EXEC_OPT_CWD:
		o->cwd = value;
		return 0;
	case EXEC_OPT_ENV:
		if (!strchr(value, '=') || *value == '=')
			return error_set(err, -EINVAL, "--env %s is not NAME=VALUE", value);
		args_add(&o->env, "%s", value);
		return o->env.failed ? error_errno(err, -ENOMEM, "--env") : 0;
	default:
		o->tty = id == EXEC_OPT_TTY;
		return 0;
	}
}

struct client_exec exec_prepare(const struct exec_options *o, int argc, char **argv)
{
	const char *const *program = (const char *const *)argv + 1;

	argv[argc] = NULL;
	if (program[0] && !strcmp(program[0], "--"))
		program++;
	return (struct client_exec){
		.argv = program,
		.shell = !program[0],
		.env = (const char *const *)o->env.v,
		.cwd = o->cwd,
		.user = o->user,
		.terminal = o->tty >= 0 ? o->tty : isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
		.in_fd = STDIN_FILENO,
		.out_fd = STDOUT_FILENO,
		.err_fd = STDERR_FILENO,
	};
}
