/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Old checkpoints go when a new one is there and who waited for it knows that: it may take long, as
 * epochs that stay are made whole. Only another checkpoint to the same folder waits for it.
 */

#include <stdlib.h>
#include <string.h>

#include "job/save-folder.h"
#include "job/save.h"

struct pruning {
	struct job *job;
	struct save_folder *folder;
};

void save_prune_stop(struct job *j)
{
	struct pruning *p = j->pruning;

	if (!p)
		return;
	j->pruning = NULL;
	save_folder_destroy(p->folder);
	free(p);
}

/* What could not be removed is by the next one. */
static void on_pruned(void *arg, int code, const char *reason)
{
	struct pruning *p = arg;
	struct job *j = p->job;

	if (code)
		job_note(j, "old checkpoints stay: %s", reason);
	save_prune_stop(j);
	save_go_on(j);
}

void save_prune(struct job *j, struct save_folder *folder, uint64_t keep)
{
	struct pruning *p = j->pruning || !keep ? NULL : calloc(1, sizeof(*p));
	struct error err;

	if (!p) {
		save_folder_destroy(folder);
		return;
	}
	*p = (struct pruning){j, folder};
	j->pruning = p;
	if (save_folder_prune(folder, keep, on_pruned, p, &err)) {
		job_note(j, "old checkpoints stay: %s", err.text);
		save_prune_stop(j);
	}
}

bool save_prunes(const struct job *j, const char *path)
{
	return j->pruning && !strcmp(save_folder_path(j->pruning->folder), path);
}
