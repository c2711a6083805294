/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a cluster, as JSON. */

#include <unistd.h>

#include "job/job.h"

static const char *state_name(enum vm_state state)
{
	static const char *const names[] = {"planned", "reserved", "started",
					    "ready",   "paused",   "ended"};

	return names[state];
}

static json_t *describe_vms(const struct job *j)
{
	json_t *list = json_array();

	for (size_t i = 0; i < j->nvms; i++) {
		const struct guest *vm = &j->vm[i];
		bool placed = vm->state != VM_PLANNED || j->joined;

		json_array_append_new(
			list,
			json_pack("{s:s, s:s, s:s*, s:O*, s:s, s:O*}", "name", vm->name, "address",
				  vm->address, "node", placed ? j->node[vm->place].name : NULL,
				  "entry", placed ? json_array_get(j->spec.nodes, vm->place) : NULL,
				  "state", state_name(vm->state), "times", vm->times));
	}
	return list;
}

static json_t *describe_nodes(const struct job *j)
{
	json_t *list = json_array();

	for (size_t i = 0; i < j->nnodes; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:b, s:s*}", "name", j->node[i].name, "holds",
					j->node[i].holds, "gone",
					*j->node[i].gone.text ? j->node[i].gone.text : NULL));
	return list;
}

json_t *job_describe(const struct job *j)
{
	json_t *state = json_pack("{s:s, s:s, s:s, s:s, s:O, s:O, s:I, s:i, s:s, s:b, s:s, s:O, "
				  "s:O, s:o, s:o, s:I, s:I}",
				  "name", j->spec.name, "id", j->id, "job", j->job, "stage",
				  j->stage ? j->stage->name : "ended", "stages", j->past, "program",
				  j->spec.program, "started", (json_int_t)j->started, "pid",
				  (int)getpid(), "socket", j->spec.socket, "detached", j->detached,
				  "digest", j->spec.digest, "image", j->spec.image, "environment",
				  j->spec.environment, "vms", describe_vms(j), "nodes",
				  describe_nodes(j), "stdout", (json_int_t)j->output[0].end,
				  "stderr", (json_int_t)j->output[1].end);

	if (j->ending)
		json_object_set_new(state, "end",
				    json_pack("{s:i, s:s*}", "code", j->code, "why",
					      *j->why.text ? j->why.text : NULL));
	return state;
}
