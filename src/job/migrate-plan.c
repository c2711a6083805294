/* SPDX-License-Identifier: Apache-2.0 */
/* Which VMs move, and where to: as VMs are placed, on nodes that have room for more. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "job/migrate.h"
#include "job/plan.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define WHY 160

static bool drains(const struct job *j, const struct guest *vm)
{
	return json_is_string(json_object_get(j->node[vm->place].facts, "draining"));
}

static bool is_named(const json_t *names, const struct guest *vm)
{
	const json_t *name;
	size_t i;

	json_array_foreach (names, i, name)
		if (!strcmp(json_string_value(name), vm->name))
			return true;
	return false;
}

/* VMs that the node takes beside those that it has, or will have. */
static unsigned room_at(const struct migrate *m, uint32_t place, char *why)
{
	const struct job *j = m->job;
	json_int_t most = json_integer_value(json_object_get(j->spec.environment, "vms-per-node"));
	unsigned have = j->node[place].vms, coming = 0, room;
	const struct plan_node node = {.name = j->node[place].name,
				       .out = place_is_out(j, place),
				       .gone = *j->node[place].gone.text ? j->node[place].gone.text
					       : j->node[place].facts	 ? NULL
								      : "it says nothing of itself",
				       .facts = j->node[place].facts};

	for (size_t i = 0; i < m->n; i++)
		coming += m->move[i].to == place;
	room = plan_capacity(j->spec.environment, &node, why, WHY);
	if (room && have + coming >= (most > 0 ? (unsigned)most : 1)) {
		snprintf(why, WHY, "it has as many VMs of the cluster as vms-per-node allows");
		return 0;
	}
	if (room && room <= coming) {
		snprintf(why, WHY, "others come there");
		return 0;
	}
	return room;
}

static int find_target(const struct migrate *m, const struct guest *vm, uint32_t *ret,
		       struct error *err)
{
	const struct job *j = m->job;
	char why[WHY] = "", first[WHY] = "";

	for (uint32_t i = 0; i < j->nnodes; i++) {
		if (m->wanted ? strcmp(m->wanted, j->node[i].name) : i == vm->place)
			continue;
		if (i == vm->place)
			return error_set(err, -EINVAL, "VM %s is at node %s already", vm->name,
					 m->wanted);
		if (room_at(m, i, why)) {
			*ret = i;
			return 0;
		}
		if (!*first)
			snprintf(first, sizeof(first), "%.60s: %.90s", j->node[i].name, why);
	}
	if (m->wanted && !*first)
		return error_set(err, -ENOENT, "%s is not a node of cluster %s", m->wanted,
				 j->spec.name);
	return error_set(err, -ENOSPC, "no node has room for VM %s%s%s", vm->name,
			 *first ? ": " : "", first);
}

static int check_names(const struct migrate *m, struct error *err)
{
	const json_t *name;
	size_t i;

	json_array_foreach (m->names, i, name)
		if (!job_find_vm(m->job, json_string_value(name)))
			return error_set(err, -ENOENT, "cluster %s has no VM %s", m->job->spec.name,
					 json_string_value(name));
	return 0;
}

int migrate_plan(struct migrate *m, struct error *err)
{
	struct job *j = m->job;
	int r = check_names(m, err);

	m->move = r ? NULL : calloc(j->nvms, sizeof(*m->move));
	if (!r && !m->move)
		r = error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; !r && i < j->nvms; i++) {
		struct guest *vm = &j->vm[i];
		struct move move = {.of = m, .vm = vm, .from = vm->place};

		if (m->names ? !is_named(m->names, vm) : !drains(j, vm))
			continue;
		if (vm->state != VM_READY)
			r = error_set(err, -EAGAIN, "VM %s does not run", vm->name);
		else
			r = find_target(m, vm, &move.to, err);
		if (!r)
			m->move[m->n++] = move;
	}
	if (!r && !m->n)
		r = error_set(err, -ENOENT, "no VM was named, and no node with VMs of %s drains",
			      j->spec.name);
	return r;
}
