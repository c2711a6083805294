/* SPDX-License-Identifier: Apache-2.0 */
/* What became of the VMs while the daemon of this node was away, and nobody could tell. */

#include <string.h>

#include "job/job.h"
#include "job/migrate.h"
#include "lib/cleanup.h"

static json_t *event_of(const struct guest *vm, const char *what, const json_t *value)
{
	return json_pack("{s:s, s:s, s:O*}", "event", what, "vm", vm->name, "times",
			 json_object_get(value, "times"));
}

/* As if its node had told it now. */
static void compare(struct job *j, const struct guest *vm, const json_t *answer)
{
	const json_t *value = json_object_get(answer, vm->name);
	json_t *event = NULL;

	if (!value)
		event = event_of(vm, "vm-ended", NULL);
	else if (vm->state == VM_STARTED && json_is_true(json_object_get(value, "ready")))
		event = event_of(vm, "ready", value);
	if (event)
		job_hear(j, event);
	json_decref(event);
}

static void on_vms(void *arg, const struct gather *answer)
{
	struct job *j = ((struct recount *)arg)->job;

	/* Gone again: it is asked again when the nodes are there. */
	if (j->ending || answer->code || job_failed(j, answer, "what runs"))
		return;
	for (size_t i = 0; i < j->nvms && !j->ending; i++) {
		const json_t *value = gather_value(answer, j->vm[i].place);

		/* Of one that moves its two movers tell. */
		if (value && guest_is_up(&j->vm[i]) && !migrate_moves(j, &j->vm[i]))
			compare(j, &j->vm[i], value);
	}
}

void job_recount(struct job *j)
{
	CLEANUP_FREE char *to = job_holders(j);
	bool any = false;

	for (size_t i = 0; i < j->nvms; i++)
		any = any || guest_is_up(&j->vm[i]);
	if (!any || j->ending)
		return;
	drain_look(j);
	j->recount.job = j;
	nodes_ask(j->nodes, json_pack("{s:s, s:s}", "op", "vms", "cluster", j->id), to, 0, on_vms,
		  &j->recount);
}
