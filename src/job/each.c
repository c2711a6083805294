/* SPDX-License-Identifier: Apache-2.0 */
/* A stage in which every node with VMs is asked something else. */

#include <stdio.h>

#include "job/job.h"

#define AT_ONCE 64u /* a daemon owes one caller 256 answers at most */

static void ask_some(struct job *j);

static void on_answer(void *arg, const struct gather *answer)
{
	struct job *j = arg;

	j->waits--;
	if (!job_failed(j, answer, j->stage->name))
		ask_some(j);
}

static void ask_some(struct job *j)
{
	for (; j->waits < AT_ONCE && j->next < j->nnodes; j->next++) {
		char to[16];

		if (!j->node[j->next].vms)
			continue;
		snprintf(to, sizeof(to), "%u", j->next);
		/* From here on there may be something to give back. */
		j->node[j->next].holds = true;
		j->waits++;
		job_ask(j, j->each(j, j->next), to, 0, on_answer);
	}
	if (!j->waits)
		job_next(j);
}

void job_ask_each(struct job *j, job_each_fn *make)
{
	j->each = make;
	j->next = 0;
	ask_some(j);
}
