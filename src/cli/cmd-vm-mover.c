/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-mover for a VM by its name, and the empty machine that it loads. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "vms/record.h"
#include "vms/subnet.h"
#include "vms/vms.h"

#define VMM_TIMEOUT_S 60 /* for an empty machine to take commands */
#define WAIT_MS 200

static void held_signals(sigset_t *ret)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

	sigemptyset(ret);
	for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
		sigaddset(ret, numbers[i]);
}

void vm_hold_signals(void)
{
	sigset_t set;

	held_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

bool vm_interrupted(void)
{
	sigset_t held, pending;

	held_signals(&held);
	sigpending(&pending);
	sigandset(&pending, &pending, &held);
	return !sigisemptyset(&pending);
}

/* Whoever talks to us has gone: wisp-mover gives up, unless it has begun to hand the VM over. */
static void on_hangup(const struct vm_errand *e, pid_t pid, struct pollfd *hangup)
{
	char rest[256];

	if (read(hangup->fd, rest, sizeof(rest)) > 0)
		return;
	hangup->fd = -1;
	if (!e->record || access(e->record, F_OK) < 0)
		kill(pid, SIGTERM);
}

/* What we are told to end, wisp-mover is: it knows how far it is, and its end is ours. */
static int watch_mover(const struct vm_errand *e, pid_t pid, int signals, int *status)
{
	struct pollfd ready[] = {{.fd = signals, .events = POLLIN},
				 {.fd = e->hangup, .events = POLLIN}};
	struct signalfd_siginfo info;
	pid_t ended;

	while ((ended = waitpid(pid, status, WNOHANG)) == 0) {
		if (poll(ready, ARRAY_SIZE(ready), -1) < 0 && errno != EINTR)
			return -errno;
		if (ready[1].revents)
			on_hangup(e, pid, &ready[1]);
		if (ready[0].revents && read(signals, &info, sizeof(info)) == sizeof(info) &&
		    info.ssi_signo != SIGCHLD)
			kill(pid, SIGTERM);
	}
	return ended < 0 ? -errno : 0;
}

/* Runs wisp-mover in our place: its exit code is ours, and so is its terminal, but for input. */
static int run_mover(const struct vm_errand *e, struct args *args, int *status, struct error *err)
{
	int fds[] = {-1, e->quiet ? -1 : STDOUT_FILENO, STDERR_FILENO, e->listen};
	struct process process = {.argv = (const char *const *)args->v,
				  .fds = fds,
				  .nfds = ARRAY_SIZE(fds),
				  .die_with_parent = true};
	CLEANUP_CLOSE int signals = -1;
	sigset_t set;
	pid_t pid;
	int r;

	held_signals(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = signals < 0 ? -errno : args->failed ? -ENOMEM : 0;
	if (r)
		return error_errno(err, r, "cannot start wisp-mover");
	r = process_start(&process, &pid, err);
	if (r)
		return r;
	r = watch_mover(e, pid, signals, status);
	return r ? error_errno(err, r, "cannot wait for wisp-mover") : 0;
}

int vm_run_mover(const struct command *cmd, const char *what, const char *vm_dir,
		 const struct args *options, const struct vm_errand *errand)
{
	CLEANUP_FREE char *program = NULL;
	struct args args = {0};
	struct error err;
	int status = 0, r = paths_program("wisp-mover", &program, &err);

	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	args_add(&args, "%s", program);
	args_add(&args, "%s", what);
	args_add(&args, "--control=%s/" VM_CONTROL, vm_dir);
	for (size_t i = 0; i < options->n; i++)
		args_add(&args, "%s", options->v[i]);
	args.failed |= options->failed;
	r = run_mover(errand, &args, &status, &err);
	args_done(&args);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : process_exit_code(status);
}

int vm_call_mover(const struct command *cmd, const char *what, const char *vm_dir,
		  const struct args *options)
{
	const struct vm_errand nothing = {.listen = -1, .hangup = -1};

	return vm_run_mover(cmd, what, vm_dir, options, &nothing);
}

bool vm_mover_killed(int code)
{
	return code > 128 && code != 130 && !vm_interrupted();
}

int vm_hand_over(const struct command *cmd, bool sends, const char *vm_dir, struct args *options,
		 const struct vm_errand *errand)
{
	/* One that came here may leave again: each hand-over has a record of its own. */
	CLEANUP_FREE char *record = record_path(vm_dir, sends ? RECORD_SEND : RECORD_RECEIVE);
	const char *what = sends ? "send" : "receive";
	struct vm_errand e = *errand;
	struct error err;
	int r;

	if (!record) {
		error_errno(&err, -ENOMEM, "cannot start wisp-mover");
		return cli_fail(cmd, EXIT_FAILURE, &err);
	}
	e.record = record;
	args_add(options, "--record=%s", record);
	r = vm_run_mover(cmd, what, vm_dir, options, &e);
	for (unsigned i = 0; vm_mover_killed(r) && !access(record, F_OK) && i < VM_TRIES; i++) {
		fprintf(stderr, "wisp %s: wisp-mover was killed, another one goes on\n", cmd->name);
		if (!i)
			args_add(options, "--again");
		r = vm_run_mover(cmd, what, vm_dir, options, &e);
	}
	/*
	 * Settled. After any failure wisp-mover knows whether a record is to stay: it may be that
	 * of an earlier hand-over, which says whose the VM is.
	 */
	/* In this order: without the record a guard would take back what has come to its end. */
	if (!r && e.guard)
		vms_release(e.guard);
	if (!r && !e.dry_run)
		unlink(record);
	return r;
}

/* In short turns, so that ^C ends it. */
int vm_wait_here(const char *name, bool agent, unsigned timeout_s, struct error *err)
{
	uint64_t end = io_now_ns() + timeout_s * 1000000000ull;
	json_t *boot = NULL;
	int r;

	do {
		r = vms_wait(name, agent, WAIT_MS, &boot, err);
		json_decref(boot);
		boot = NULL;
		if (r == -ETIMEDOUT && vm_interrupted())
			return error_set(err, -ECANCELED, "interrupted");
	} while (r == -ETIMEDOUT && io_now_ns() < end);
	return r == -ETIMEDOUT ? error_set(err, r, "%s does not answer after %u s", name, timeout_s)
			       : r;
}

void vm_pass_option(const struct command *cmd, int id, const char *value, struct args *options)
{
	const struct option_desc *o = cmd->options;

	while (o->id != id)
		o++;
	if (value)
		args_add(options, "--%s=%s", o->name, value);
	else
		args_add(options, "--%s", o->name);
}

/* The network it was on: the guest has its address there. */
static int saved_subnet(const json_t *config, struct subnet *ret, struct error *err)
{
	struct subnet whole = {.base = 0, .prefix = 0};
	unsigned prefix = (unsigned)json_integer_value(json_object_get(config, "prefix"));
	uint32_t address;
	int r = subnet_parse_address(&whole, record_text(config, "address"), &address, err);

	if (r)
		return r;
	if (prefix < 1 || prefix > 30)
		return error_set(err, -EBADMSG, "the saved network has a prefix of %u", prefix);
	*ret = (struct subnet){.base = address & ~(UINT32_MAX >> prefix), .prefix = prefix};
	return 0;
}

int vm_start_empty(const struct vm_place *place, json_t *config, char **ret, int *guard,
		   struct error *err)
{
	const char *id = record_text(config, "network_id"), *name;
	CLEANUP_FREE char *saved = strdup(record_text(config, "network"));
	struct subnet subnet;
	struct vms_network net = {.name = place->net ? place->net : saved,
				  .subnet = &subnet,
				  .id = place->net || !*id ? NULL : id};
	json_t *vm = NULL;
	int r = saved ? saved_subnet(config, &subnet, err) : -ENOMEM;

	if (r)
		return r;
	json_object_set_new(config, "incoming", json_true());
	if (place->name)
		json_object_set_new(config, "name", json_string(place->name));
	name = record_text(config, "name");
	r = vms_start(config, &net, &vm, err);
	json_decref(vm);
	if (r)
		return r;
	r = vms_guard(net.name, name, true, NULL, guard, err);
	if (!r)
		r = vm_wait_here(name, false, VMM_TIMEOUT_S, err);
	if (!r)
		r = vms_dir(name, ret, err);
	if (r)
		vm_give_up(name);
	return r;
}

void vm_give_up(const char *name)
{
	struct vms_stop stop = {.kill = true};

	vms_stop(name, &stop, NULL);
	vms_leave_networks();
}
