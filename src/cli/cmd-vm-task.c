/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm tasks, attach, signal and forget: programs in VMs that outlive the command. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "agent/client-task.h"
#include "agent/client.h"
#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "vms/record.h"
#include "vms/vms.h"

/* A member of a task, which the guest may have written: for a person. */
static void shown_text(const json_t *task, const char *key, char ret[81])
{
	const char *text = record_text(task, key);

	text_printable(text, strnlen(text, 80), ret);
}

/* -------- start and attach -------- */

/* The end was seen: nobody needs it any more. What cannot be removed is seen in the list. */
static void forget(const char *name, const char *id)
{
	CLEANUP_CLOSE int fd = vms_agent(name, NULL);

	if (fd >= 0)
		client_task_remove(fd, id, false, NULL);
}

static int attach(const struct command *cmd, const char *name, const char *id,
		  const struct client_exec *exec)
{
	struct error err;
	CLEANUP_CLOSE int fd = vms_agent(name, &err);
	int code, r = fd < 0 ? fd : client_task_attach(fd, id, exec, &code, &err);

	if (!r) {
		forget(name, id);
		return code;
	}
	if (r == -ECONNABORTED) {
		fprintf(stderr, "\nLeft. wisp vm attach %s %s comes back.\n", name, id);
		return 0;
	}
	if (fd >= 0 && r != -ENOENT)
		error_set(&err, r, "%.300s (the task goes on: wisp vm attach %s %s)", err.text,
			  name, id);
	return cli_fail(cmd, EXIT_CANNOT_RUN, &err);
}

int vm_task_run(const struct command *cmd, const char *name, const char *id, bool detach,
		const struct client_exec *exec)
{
	struct client_exec started = *exec;
	struct error err;
	CLEANUP_CLOSE int fd = vms_agent(name, &err);
	int r;

	/* What is typed there comes by wisp vm attach; else nobody gives it input. */
	if (detach && !exec->terminal)
		started.in_fd = -1;
	r = fd < 0 ? fd : client_task_start(fd, id, &started, NULL, &err);
	if (r)
		return cli_fail(cmd, EXIT_CANNOT_RUN, &err);
	return detach ? 0 : attach(cmd, name, id, exec);
}

/* Is it a task with a terminal? */
static int find_terminal(const char *name, const char *id, bool *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = vms_agent(name, err);
	json_t *list, *task;
	size_t i;
	int r = fd < 0 ? fd : client_task_list(fd, &list, err);

	if (r)
		return r;
	*ret = false;
	json_array_foreach (list, i, task)
		if (!strcmp(record_text(task, "id"), id) && !vm_number(task, "owner"))
			*ret = json_is_true(json_object_get(task, "terminal"));
	json_decref(list);
	return 0;
}

/* The words of a command without options of its own. 0, OPTION_HELP, or -errno. */
static int parse_words(const struct command *cmd, int argc, char **argv, int n, char ***ret,
		       struct error *err)
{
	struct option_parser parser;
	const char *value;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = option_next(&parser, &value, err);
	if (!r && parser.argc != n)
		r = error_set(err, -EINVAL, "give %s", cmd->args);
	*ret = parser.argv;
	return r;
}

static int run_attach(const struct command *cmd, int argc, char **argv)
{
	struct client_exec exec = {.out_fd = STDOUT_FILENO, .err_fd = STDERR_FILENO};
	struct error err;
	char **words;
	int r = parse_words(cmd, argc, argv, 2, &words, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = find_terminal(words[0], words[1], &exec.terminal, &err);
	return r ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : attach(cmd, words[0], words[1], &exec);
}

const struct command cmd_vm_attach = {
	.name = "vm attach",
	.args = "NAME ID",
	.summary = "Come back to a program that wisp vm exec --keep ID started",
	.details =
		"Shows what it has written since nobody was there, and passes input and signals "
		"on, but for SIGHUP, which leaves it, as Ctrl-] does at a terminal. Who was there "
		"before is sent away. With the program's end its task is forgotten; the exit code "
		"is as that of wisp vm exec.",
	.complete = COMPLETE_VM,
	.run = run_attach,
};

/* -------- list -------- */

static void print_task(const json_t *task)
{
	char id[81], user[81], program[81], state[96];

	shown_text(task, "id", id);
	shown_text(task, "user", user);
	shown_text(task, "program", program);
	shown_text(task, "state", state);
	if (json_object_get(task, "exit_code"))
		snprintf(state, sizeof(state), "exit %lld", vm_number(task, "exit_code"));
	if (json_object_get(task, "signal"))
		snprintf(state, sizeof(state), "signal %lld", vm_number(task, "signal"));
	printf("%-20s %-10s %8lld %-12s %-8s %12lld %s\n", id, state, vm_number(task, "pid"), user,
	       json_is_true(json_object_get(task, "attached")) ? "yes" : "no",
	       vm_number(json_object_get(task, "stdout"), "to") +
		       vm_number(json_object_get(task, "stderr"), "to"),
	       program);
}

static int run_tasks(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_CLOSE int fd = -1;
	struct option_parser parser;
	struct vm_flags f;
	json_t *list, *task;
	struct error err;
	size_t i;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = fd = vms_agent(parser.argv[0], &err);
	if (r >= 0)
		r = client_task_list(fd, &list, &err);
	if (r < 0)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (f.json)
		return cli_print_json(list);
	if (json_array_size(list))
		printf("%-20s %-10s %8s %-12s %-8s %12s %s\n", "ID", "STATE", "PROCESS", "USER",
		       "ATTACHED", "WRITTEN", "PROGRAM");
	json_array_foreach (list, i, task)
		print_task(task);
	json_decref(list);
	return 0;
}

const struct command cmd_vm_tasks = {
	.name = "vm tasks",
	.args = "NAME",
	.summary = "List the programs in a virtual machine that wisp vm exec --keep started",
	.details =
		"A VM keeps 32 of them at most, those that have ended too, until wisp vm attach or "
		"wisp vm forget.",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}},
	.complete = COMPLETE_VM,
	.run = run_tasks,
};

/* -------- signal and forget -------- */

/* "15", "TERM" or "SIGTERM". */
static int parse_signal(const char *text, unsigned *ret, struct error *err)
{
	const char *name = strncasecmp(text, "SIG", 3) ? text : text + 3;

	for (unsigned n = 1; n < (unsigned)_NSIG; n++) {
		const char *known = sigabbrev_np((int)n);

		if (known && !strcasecmp(known, name)) {
			*ret = n;
			return 0;
		}
	}
	return parse_uint(text, "signal", 1, _NSIG - 1, ret, err);
}

static int run_signal(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_CLOSE int fd = -1;
	unsigned signo = 0;
	struct error err;
	char **words;
	int r = parse_words(cmd, argc, argv, 3, &words, &err);

	if (!r)
		r = parse_signal(words[2], &signo, &err);
	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = fd = vms_agent(words[0], &err);
	if (r >= 0)
		r = client_task_signal(fd, words[1], (int)signo, &err);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_vm_signal = {
	.name = "vm signal",
	.args = "NAME ID SIGNAL",
	.summary = "Send a signal to a program that wisp vm exec --keep ID started",
	.details = "SIGNAL is a number or a name: 15, TERM, SIGTERM.",
	.complete = COMPLETE_VM,
	.run = run_signal,
};

static int run_forget(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_CLOSE int fd = -1;
	struct option_parser parser;
	struct vm_flags f;
	struct error err;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (!r && parser.argc != 2)
		r = error_set(&err, -EINVAL, "give NAME ID");
	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = fd = vms_agent(parser.argv[0], &err);
	if (r >= 0)
		r = client_task_remove(fd, parser.argv[1], f.kill, &err);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_vm_forget = {
	.name = "vm forget",
	.args = "NAME ID",
	.summary = "Forget a program that wisp vm exec --keep ID started, and its output",
	.options =
		(const struct option_desc[]){{OPT_KILL, "kill", 0, NULL,
					      "End it, if it runs: SIGHUP, and SIGKILL 5 s later",
					      0},
					     {0}},
	.complete = COMPLETE_VM,
	.run = run_forget,
};
