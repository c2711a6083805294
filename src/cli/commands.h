/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_COMMANDS_H
#define WISP_CLI_COMMANDS_H

/* The commands of wisp: one file a command group, one row a command in commands.c. */

#include <jansson.h>

#include "lib/command.h"

/* Exit codes of wisp itself; commands that run a program pass on the program's. */
#define EXIT_USAGE 2	    /* bad arguments */
#define EXIT_CANNOT_RUN 126 /* the program could not be reached or started */

/* The rows, ended by NULL. */
extern const struct command *const wisp_commands[];

/* cmd-<group>.c */
extern const struct command cmd_completion, cmd_man;
extern const struct command cmd_image_build, cmd_image_list, cmd_image_show, cmd_image_verify,
	cmd_image_sign, cmd_image_remove, cmd_image_export, cmd_image_import, cmd_image_fetch,
	cmd_image_serve;
extern const struct command cmd_doctor;
extern const struct command cmd_env_check, cmd_env_merge, cmd_env_explain, cmd_env_why,
	cmd_env_diff, cmd_env_fields, cmd_env_waive;
extern const struct command cmd_lab_up, cmd_lab_status, cmd_lab_exec, cmd_lab_run, cmd_lab_net,
	cmd_lab_down;
extern const struct command cmd_vm_start, cmd_vm_list, cmd_vm_exec, cmd_vm_shell, cmd_vm_console,
	cmd_vm_cp, cmd_vm_stats, cmd_vm_stop, cmd_vm_pause, cmd_vm_resume, cmd_vm_log,
	cmd_vm_checkpoint, cmd_vm_suspend, cmd_vm_restore, cmd_vm_migrate, cmd_vm_receive,
	cmd_vm_cancel, cmd_vm_tasks, cmd_vm_attach, cmd_vm_signal, cmd_vm_forget;
extern const struct command cmd_network_list, cmd_network_show, cmd_network_link,
	cmd_network_unlink;
extern const struct command cmd_checkpoint_list, cmd_checkpoint_show, cmd_checkpoint_verify,
	cmd_checkpoint_merge, cmd_checkpoint_prune;

extern const struct command cmd_node_list, cmd_node_show, cmd_node_drain, cmd_node_resume,
	cmd_account;

extern const struct command cmd_run, cmd_cluster_list, cmd_cluster_show, cmd_cluster_logs,
	cmd_cluster_attach, cmd_cluster_detach, cmd_cluster_stop, cmd_cluster_checkpoint,
	cmd_cluster_suspend, cmd_cluster_resume, cmd_cluster_restart, cmd_cluster_exec,
	cmd_cluster_shell, cmd_cluster_cp, cmd_cluster_migrate;

struct error;

/* Prints "wisp NAME: text" on standard error and returns code; for the run functions. */
int cli_fail(const struct command *cmd, int code, const struct error *err);

/* Prints the value, takes it, and returns the exit code: 1 without a value. */
int cli_print_json(json_t *value);

#endif
