/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-mover for a VM by its name, and the empty machine that it loads. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "vms/record.h"
#include "vms/subnet.h"
#include "vms/vms.h"

#define VMM_TIMEOUT_S 60 /* for an empty machine to take commands */

/* Runs wisp-mover in our place in the terminal: ^C reaches it, and its exit code is ours. */
static int run_mover(const struct command *cmd, struct args *args)
{
	struct process process = {.argv = (const char *const *)args->v, .die_with_parent = true};
	struct error err;
	pid_t pid;
	int status, r = args->failed ? error_errno(&err, -ENOMEM, "cannot start wisp-mover")
				     : process_start(&process, &pid, &err);

	if (!r) {
		r = process_wait(pid, &status);
		if (r)
			error_errno(&err, r, "cannot wait for wisp-mover");
	}
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : process_exit_code(status);
}

int vm_call_mover(const struct command *cmd, const char *what, const char *vm_dir,
		  const struct args *options)
{
	CLEANUP_FREE char *program = NULL;
	struct args args = {0};
	struct error err;
	int r = paths_program("wisp-mover", &program, &err);

	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	args_add(&args, "%s", program);
	args_add(&args, "%s", what);
	args_add(&args, "--control=%s/" VM_CONTROL, vm_dir);
	for (size_t i = 0; i < options->n; i++)
		args_add(&args, "%s", options->v[i]);
	args.failed |= options->failed;
	r = run_mover(cmd, &args);
	args_done(&args);
	return r;
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

int vm_start_empty(const struct vm_place *place, json_t *config, char **ret, struct error *err)
{
	const char *id = record_text(config, "network_id"), *name;
	CLEANUP_FREE char *saved = strdup(record_text(config, "network"));
	struct subnet subnet;
	struct vms_network net = {.name = place->net ? place->net : saved,
				  .subnet = &subnet,
				  .id = place->net || !*id ? NULL : id};
	json_t *vm = NULL, *boot = NULL;
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
	r = vms_wait(name, false, VMM_TIMEOUT_S * 1000, &boot, err);
	json_decref(boot);
	return r ? r : vms_dir(name, ret, err);
}

void vm_give_up(const char *name)
{
	struct vms_stop stop = {.kill = true};

	vms_stop(name, &stop, NULL);
	vms_leave_networks();
}
