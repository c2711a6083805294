/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_CHECKPOINT_H
#define WISP_CLI_CMD_CHECKPOINT_H

/* wisp checkpoint of a folder that is a job's, and not that of a VM. */

#include <stdbool.h>
#include <stdint.h>

#include "lib/command.h"
#include "mover/store.h"

struct checkpoint_args {
	const char *dir;
	bool json;
	uint64_t at; /* 0: not given */
	unsigned keep;
	struct store store; /* of a VM's folder */
};

/* Each does the command and returns its exit code. */
typedef int checkpoint_job_fn(const struct command *cmd, const struct checkpoint_args *args);

checkpoint_job_fn checkpoint_job_list, checkpoint_job_show, checkpoint_job_verify,
	checkpoint_job_merge, checkpoint_job_prune;

#endif
