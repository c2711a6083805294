/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm cancel: ends the checkpoint, restore or migration of a virtual machine. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/busy.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "vms/record.h"
#include "vms/vms.h"

#define PATIENCE_MS 60000

static int cancel(const char *name, struct busy_now *ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL, *control = NULL;
	int r = vms_dir(name, &dir, err);

	if (r)
		return r;
	control = io_format("%s/" VM_CONTROL, dir);
	r = control ? busy_cancel(control, PATIENCE_MS, ret, err)
		    : error_errno(err, -ENOMEM, "%s", name);
	if (r)
		return error_prefix(err, r, "%s", name);
	if (strcmp(ret->outcome, "cancelled") != 0)
		return error_set(err, -EALREADY, "%s: too late: %s came to its end: %s", name,
				 ret->what, *ret->outcome ? ret->outcome : "killed");
	return 0;
}

static int run_cancel(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct busy_now now = {0};
	struct vm_flags f;
	struct error err;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	if (cancel(parser.argv[0], &now, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	printf("%s: %s cancelled\n", parser.argv[0], now.what);
	return 0;
}

const struct command cmd_vm_cancel = {
	.name = "vm cancel",
	.args = "NAME",
	.summary = "End a checkpoint, restore or migration of a virtual machine",
	.details =
		"Waits until it has ended: the VM runs on, and what the operation had begun is "
		"taken "
		"back. A migration whose hand-over has begun is not cancelled any more; one that "
		"comes to this machine ends with its empty VM.",
	.complete = COMPLETE_VM,
	.run = run_cancel,
};
