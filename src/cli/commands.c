/* SPDX-License-Identifier: Apache-2.0 */
/* The command table of wisp. */

#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/error.h"

/* One row a command. */
/* clang-format off */
const struct command *const wisp_commands[] = {
	&cmd_doctor,
	&cmd_lab_up,
	&cmd_lab_status,
	&cmd_lab_exec,
	&cmd_lab_run,
	&cmd_lab_net,
	&cmd_lab_down,
	&cmd_env_check,
	&cmd_env_merge,
	&cmd_env_explain,
	&cmd_env_why,
	&cmd_env_diff,
	&cmd_env_fields,
	&cmd_env_waive,
	&cmd_run,
	&cmd_cluster_list,
	&cmd_cluster_show,
	&cmd_cluster_exec,
	&cmd_cluster_shell,
	&cmd_cluster_cp,
	&cmd_cluster_attach,
	&cmd_cluster_detach,
	&cmd_cluster_logs,
	&cmd_cluster_migrate,
	&cmd_cluster_checkpoint,
	&cmd_cluster_suspend,
	&cmd_cluster_resume,
	&cmd_cluster_restart,
	&cmd_cluster_stop,
	&cmd_image_build,
	&cmd_image_list,
	&cmd_image_show,
	&cmd_image_verify,
	&cmd_image_sign,
	&cmd_image_remove,
	&cmd_image_export,
	&cmd_image_import,
	&cmd_image_fetch,
	&cmd_image_serve,
	&cmd_vm_start,
	&cmd_vm_list,
	&cmd_vm_exec,
	&cmd_vm_shell,
	&cmd_vm_tasks,
	&cmd_vm_attach,
	&cmd_vm_signal,
	&cmd_vm_forget,
	&cmd_vm_console,
	&cmd_vm_cp,
	&cmd_vm_stats,
	&cmd_vm_stop,
	&cmd_vm_pause,
	&cmd_vm_resume,
	&cmd_vm_log,
	&cmd_vm_checkpoint,
	&cmd_vm_suspend,
	&cmd_vm_restore,
	&cmd_vm_migrate,
	&cmd_vm_cancel,
	&cmd_vm_receive,
	&cmd_network_list,
	&cmd_network_show,
	&cmd_network_link,
	&cmd_network_unlink,
	&cmd_checkpoint_list,
	&cmd_checkpoint_show,
	&cmd_checkpoint_verify,
	&cmd_checkpoint_merge,
	&cmd_checkpoint_prune,
	&cmd_node_list,
	&cmd_node_show,
	&cmd_node_drain,
	&cmd_node_resume,
	&cmd_account,
	&cmd_completion,
	&cmd_man,
	NULL,
};
/* clang-format on */

int cli_print_json(json_t *value)
{
	if (!value)
		return EXIT_FAILURE;
	/* That it cannot be written main() tells. */
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
	return 0;
}

int cli_fail(const struct command *cmd, int code, const struct error *err)
{
	fprintf(stderr, "wisp %s: %s\n", cmd->name, err->text);
	return code;
}

static int run_completion(const struct command *cmd, int argc, char **argv)
{
	command_completion(stdout, "wisp", wisp_commands);
	return 0;
}

const struct command cmd_completion = {
	.name = "completion",
	.args = "",
	.summary = "Print the bash completion script",
	.run = run_completion,
};

static int run_man(const struct command *cmd, int argc, char **argv)
{
	command_man(stdout, "wisp", wisp_commands);
	return 0;
}

const struct command cmd_man = {
	.name = "man-options",
	.args = "",
	.summary = "Print the command reference in scdoc form, for the man page",
	.run = run_man,
};
