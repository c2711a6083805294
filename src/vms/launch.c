/* SPDX-License-Identifier: Apache-2.0 */
/* Starts the processes of a VM: its wisp-vmm, and the greeter that waits for its agent. */

#include "vms/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "vms/entry.h"
#include "vms/greet.h"
#include "vms/place.h"
#include "vms/record.h"
#include "vms/vmmargs.h"

static int open_output(const struct vm *vm, const char *file, int *ret, struct error *err)
{
	CLEANUP_FREE char *path = record_path(vm->dir, file);

	*ret = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	return *ret < 0 ? error_errno(err, -errno, "cannot open %s of VM %s", file, vm->name) : 0;
}

static int start_vmm(struct vm *vm, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *hosts = entry_hosts(vm->network);
	CLEANUP_CLOSE int log = -1;
	struct args args = {0};
	struct place place = {.procs = -1};
	int shares[SHARES_MAX], nshares = 0;
	int r = hosts ? paths_program("wisp-vmm", &program, err) : -ENOMEM;

	if (!r)
		r = open_output(vm, VM_LOG, &log, err);
	if (!r)
		r = vmm_args(vm->config, program, vm->dir, hosts, vm->incoming, &args, err);
	if (!r && args.failed)
		r = error_errno(err, -ENOMEM, "cannot start VM %s", vm->name);
	if (!r)
		r = place_open(vm->config, &place, err);
	if (!r)
		r = nshares = shares_start(vm, shares, err);
	if (r >= 0) {
		int fds[VMM_FD_SHARE + SHARES_MAX] = {-1, log, log, [VMM_FD_TAP] = vm->tap};
		struct process process = {.argv = (const char *const *)args.v,
					  .cwd = "/",
					  .fds = fds,
					  .nfds = VMM_FD_SHARE + (unsigned)nshares,
					  .in_child = place_enter,
					  .in_child_arg = &place,
					  .die_with_parent = true};

		for (int i = 0; i < nshares; i++)
			fds[VMM_FD_SHARE + i] = shares[i];
		r = process_start(&process, &vm->vmm, err);
		for (int i = 0; i < nshares; i++)
			close(shares[i]);
	}
	place_close(&place);
	args_done(&args);
	return r;
}

/* A process of its own, because it waits; it holds nothing of ours but standard streams. */
static int start_greeter(struct vm *vm, uint64_t started_ns, off_t console)
{
	const struct network_config *c = vm->network->config;
	const struct greeting greeting = {.network_dir = c->dir,
					  .dir = vm->dir,
					  .name = vm->name,
					  .vms = c->vms,
					  .started_ns = started_ns,
					  .console = console,
					  .silent = vm->incoming};
	pid_t pid = fork();

	if (!pid) {
		close_range(3, UINT_MAX, 0);
		_exit(greet(&greeting));
	}
	if (pid < 0)
		return -errno;
	vm->greeter = pid;
	return 0;
}

int launch_vm(struct vm *vm, struct error *err)
{
	CLEANUP_FREE char *ready = record_path(vm->dir, RECORD_READY);
	CLEANUP_CLOSE int console = -1;
	uint64_t started_ns;
	off_t size;
	int r = open_output(vm, VM_CONSOLE, &console, err);

	if (r)
		return r;
	if (!ready || (unlink(ready) < 0 && errno != ENOENT))
		return error_errno(err, ready ? -errno : -ENOMEM, "cannot start VM %s", vm->name);
	size = lseek(console, 0, SEEK_END);
	started_ns = io_now_ns();
	r = start_vmm(vm, err);
	if (r)
		return r;
	r = start_greeter(vm, started_ns, size);
	if (r)
		error_errno(err, r, "cannot wait for the agent of VM %s", vm->name);
	return r;
}
