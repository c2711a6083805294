/* SPDX-License-Identifier: Apache-2.0 */
/* Starts and ends the programs that serve a VM's shares. */

#include "vms/shares.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "net/virtiofsd.h"
#include "vms/entry.h"
#include "vms/record.h"

static int start_one(struct vm *vm, const char *program, const char *preload, const json_t *share,
		     pid_t *pid, int *fd, struct error *err)
{
	const struct virtiofsd fs = {.program = program,
				     .preload = preload,
				     .source = record_text(share, "source"),
				     .read_only = json_is_true(json_object_get(share, "readonly"))};
	int r = 0;

	if (access(fs.source, F_OK) < 0)
		r = error_errno(err, -errno, "folder %s", fs.source);
	if (!r)
		r = virtiofsd_start(&fs, pid, fd, err);
	return r ? error_prefix(err, r, "share %s of VM %s", record_text(share, "tag"), vm->name)
		 : 0;
}

int shares_start(struct vm *vm, int fds[SHARES_MAX], struct error *err)
{
	const json_t *shares = json_object_get(vm->config, "shares"), *share;
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *preload = NULL;
	size_t i, done = 0;
	int r = 0;

	if (!json_array_size(shares))
		return 0;
	if (json_array_size(shares) > SHARES_MAX)
		return error_set(err, -E2BIG, "VM %s has more than %d shares", vm->name,
				 SHARES_MAX);
	r = virtiofsd_find(&program, err);
	if (!r && vm->network->config->ordinary_user)
		r = paths_program("wisp-noatime.so", &preload, err);
	json_array_foreach (shares, i, share) {
		if (!r)
			r = start_one(vm, program, preload, share, &vm->share[i], &fds[i], err);
		done += !r;
	}
	if (!r)
		return (int)done;
	while (done-- > 0)
		close(fds[done]);
	shares_stop(vm);
	return r;
}

void shares_stop(struct vm *vm)
{
	for (unsigned i = 0; i < SHARES_MAX; i++)
		if (vm->share[i])
			kill(vm->share[i], SIGKILL);
}

void shares_ended(struct vm *vm, pid_t pid)
{
	for (unsigned i = 0; i < SHARES_MAX; i++) {
		if (vm->share[i] != pid)
			continue;
		vm->share[i] = 0;
		if (vm->vmm)
			log_warn(network_log(vm->network), "vms",
				 "%s: the virtiofsd of a share has ended, the VM has lost it",
				 vm->name);
	}
}
