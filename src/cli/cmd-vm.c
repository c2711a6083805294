/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm stop, pause and resume, and what all commands about VMs share. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "net/state.h"
#include "vms/control.h"
#include "vms/handover.h"
#include "vms/record.h"
#include "vms/vms.h"

#define STOP_TIMEOUT_S 20

void vm_run_jobs(struct vm_job *jobs, int n, void *(*fn)(void *job))
{
	for (int i = 0; i < n; i++)
		if (!jobs[i].r && pthread_create(&jobs[i].thread, NULL, fn, &jobs[i]))
			jobs[i].r = error_set(&jobs[i].err, -EAGAIN, "cannot make a thread");
	for (int i = 0; i < n; i++)
		if (jobs[i].thread)
			pthread_join(jobs[i].thread, NULL);
}

long long vm_number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

int vm_parse_flags(struct option_parser *parser, const struct command *cmd, int argc, char **argv,
		   struct vm_flags *ret, struct error *err)
{
	const char *value;
	int r;

	*ret = (struct vm_flags){.timeout_s = STOP_TIMEOUT_S};
	option_start(parser, cmd, argc, argv);
	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		ret->json |= r == OPT_JSON;
		ret->names |= r == OPT_NAMES;
		ret->all |= r == OPT_ALL;
		ret->kill |= r == OPT_KILL;
		ret->vmm |= r == OPT_VMM;
		ret->follow |= r == OPT_FOLLOW;
		if (r == OPT_TIMEOUT) {
			r = parse_uint(value, "--timeout", 0, 86400, &ret->timeout_s, err);
			if (r)
				return r;
		}
	}
	if (!r && !*cmd->args && parser->argc)
		r = error_set(err, -EINVAL, "unexpected argument %s", parser->argv[0]);
	if (!r && *cmd->args && !parser->argc && !ret->all)
		r = error_set(err, -EINVAL, "give the name of a VM");
	if (!r && !strcmp(cmd->args, "NAME") && parser->argc > 1)
		r = error_set(err, -EINVAL, "give one VM");
	return r;
}

/* -------- stop -------- */

static void *stop_job(void *arg)
{
	struct vm_job *job = arg;
	const struct vm_flags *f = job->options;
	struct vms_stop stop = {
		.timeout_ms = f->timeout_s * 1000, .kill = f->kill, .forget = f->kill};

	job->r = vms_stop(job->name, &stop, &job->err);
	job->how = stop.how;
	return NULL;
}

static int stop_all(const struct command *cmd, const struct vm_flags *f, char **names, int n)
{
	struct vm_job *jobs = calloc((size_t)n + 1, sizeof(*jobs));
	int code = 0;

	if (!jobs)
		return EXIT_FAILURE;
	for (int i = 0; i < n; i++)
		jobs[i] = (struct vm_job){.name = names[i], .options = f};
	vm_run_jobs(jobs, n, stop_job);
	for (int i = 0; i < n; i++) {
		if (jobs[i].r)
			code = cli_fail(cmd, EXIT_FAILURE, &jobs[i].err);
		else
			printf("%s: %s\n", names[i], jobs[i].how);
	}
	free(jobs);
	vms_leave_networks();
	return code;
}

static int run_stop(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	char **names = NULL;
	struct vm_flags f;
	struct error err;
	int n = 0, r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	if (!f.all)
		return stop_all(cmd, &f, parser.argv, parser.argc);
	if (vms_names(&names, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	while (names[n])
		n++;
	r = stop_all(cmd, &f, names, n);
	state_list_free(names);
	return r;
}

const struct command cmd_vm_stop = {
	.name = "vm stop",
	.args = "NAME...",
	.summary = "End virtual machines",
	.details =
		"Asks the agent to power off, then presses the power button, then stops the "
		"hypervisor, then kills it, and says which of them it took. Removes what is "
		"known of a VM that had ended before. The private network ends with its last VM.",
	.options =
		(const struct option_desc[]){
			{OPT_TIMEOUT, "timeout", 't', "SECONDS",
			 "How long the guest has for each way of powering off (default 20)", 0},
			{OPT_KILL, "kill", 'k', NULL, "Kill it at once", 0},
			{OPT_ALL, "all", 'a', NULL, "End all VMs of this user", 0},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_stop,
};

/* -------- pause and resume -------- */

/* A VM that may run elsewhere must not run on here. */
static int check_record(const char *name, const char *dir, struct error *err)
{
	CLEANUP_FREE char *instead =
		io_format("if it surely does not, remove the record in %s", dir);

	return hand_over_check(name, dir, HAND_OVER_UNDECIDED, instead ? instead : "", err);
}

static int control_each(const struct command *cmd, int argc, char **argv, const char *command)
{
	struct option_parser parser;
	struct vm_flags f;
	struct error err;
	int code = 0, r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	for (int i = 0; i < parser.argc; i++) {
		CLEANUP_FREE char *dir = NULL;

		r = vms_dir(parser.argv[i], &dir, &err);
		if (!r && !strcmp(command, "resume"))
			r = check_record(parser.argv[i], dir, &err);
		if (!r)
			r = control_call(dir, command, NULL, NULL, &err);
		if (r)
			code = cli_fail(cmd, EXIT_FAILURE, &err);
	}
	return code;
}

static int run_pause(const struct command *cmd, int argc, char **argv)
{
	return control_each(cmd, argc, argv, "pause");
}

static int run_resume(const struct command *cmd, int argc, char **argv)
{
	return control_each(cmd, argc, argv, "resume");
}

const struct command cmd_vm_pause = {
	.name = "vm pause",
	.args = "NAME...",
	.summary = "Stop the vCPUs of virtual machines",
	.complete = COMPLETE_VM,
	.run = run_pause,
};

const struct command cmd_vm_resume = {
	.name = "vm resume",
	.args = "NAME...",
	.summary = "Let paused virtual machines run on",
	.complete = COMPLETE_VM,
	.run = run_resume,
};
