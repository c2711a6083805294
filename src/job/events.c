/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes say unasked: of their VMs, and of each other. */

#include <string.h>

#include "job/job.h"
#include "job/migrate.h"
#include "lib/cleanup.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

bool guest_is_up(const struct guest *vm)
{
	return vm->state == VM_STARTED || vm->state == VM_READY || vm->state == VM_PAUSED;
}

/* -------- VMs -------- */

static void on_ready(struct job *j, const json_t *event)
{
	struct guest *vm = job_find_vm(j, text(event, "vm"));

	if (!vm || vm->state == VM_READY || vm->state == VM_ENDED)
		return;
	vm->state = VM_READY;
	json_decref(vm->times);
	vm->times = json_incref(json_object_get(event, "times"));
	ready_count(j);
}

/* The last lines of its console say more than its exit code. */
static void tell_console(struct job *j, const struct guest *vm, const char *console)
{
	if (*console)
		terminals_tell(j->terminals, json_pack("{s:s, s:s, s:s}", "event", "console", "vm",
						       vm->name, "text", console));
}

/* Of one that has moved away, or has not come, nothing is to be told. */
static bool is_of_its_node(const struct guest *vm, const json_t *event)
{
	const json_t *node = json_object_get(event, "node");

	return !json_is_integer(node) || json_integer_value(node) == vm->place;
}

static void on_ended(struct job *j, const json_t *event)
{
	struct guest *vm = job_find_vm(j, text(event, "vm"));
	const json_t *end = json_object_get(event, "end");
	const char *said = text(end, "said");

	if (!vm || vm->state == VM_ENDED || migrate_keeps(j, vm, event) ||
	    !is_of_its_node(vm, event))
		return;
	vm->state = VM_ENDED;
	job_changed(j);
	if (j->ending)
		return;
	tell_console(j, vm, text(event, "console"));
	job_fail(j, "VM %s at node %s has ended: %s%s%s", vm->name, j->node[vm->place].name,
		 json_is_object(end) ? text(end, "reason") : "why is not known", *said ? ": " : "",
		 said);
}

/* -------- nodes -------- */

static void set_gone(struct job *j, const struct nodeset *set, const char *reason)
{
	for (size_t i = 0; i < j->nnodes; i++)
		if (nodeset_has(set, (uint32_t)i))
			snprintf(j->node[i].gone.text, sizeof(j->node[i].gone.text), "%s", reason);
}

static const struct guest *vm_at(const struct job *j, const struct nodeset *set)
{
	for (size_t i = 0; i < j->nvms; i++)
		if (nodeset_has(set, j->vm[i].place) && guest_is_up(&j->vm[i]) &&
		    !migrate_moves(j, &j->vm[i]))
			return &j->vm[i];
	return NULL;
}

static void on_lost(struct job *j, const struct nodeset *set)
{
	const struct guest *vm = vm_at(j, set);

	set_gone(j, set, "it is lost");
	job_changed(j);
	if (vm && !j->ending)
		job_fail(j, "node %s is lost, with VM %s", j->node[vm->place].name, vm->name);
}

static void on_nodes(struct job *j, const json_t *event, bool lost)
{
	struct nodeset set = {0};

	if (nodeset_parse(text(event, "nodes"), &set, NULL))
		return;
	log_warn(&j->log, "nodes", "%s: %s", text(event, "event"), text(event, "nodes"));
	if (lost)
		on_lost(j, &set);
	else
		set_gone(j, &set, "");
	nodeset_done(&set);
}

/* A node ends the cluster by itself. */
static void on_due(struct job *j, const json_t *event)
{
	const json_t *node = json_object_get(event, "node");
	size_t place = (size_t)json_integer_value(node);
	const char *name = json_is_integer(node) && place < j->nnodes ? j->node[place].name
								      : text(event, "node");

	if (!j->ending)
		job_fail(j, "node %s ends it: %s", name, text(event, "why"));
}

void job_hear(struct job *j, const json_t *event)
{
	const char *what = text(event, "event"), *cluster = text(event, "cluster");

	if (*cluster && strcmp(cluster, j->id))
		return;
	if (!strcmp(what, "ready"))
		on_ready(j, event);
	else if (!strcmp(what, "vm-ended"))
		on_ended(j, event);
	else if (!strcmp(what, "progress") && !strcmp(text(event, "op"), "image"))
		image_hear(j, event);
	else if (!strcmp(what, "progress"))
		migrate_hear(j, event);
	else if (!strcmp(what, "due"))
		on_due(j, event);
	else if (!strcmp(what, "drain"))
		drain_look(j);
	else if (!strcmp(what, "node-lost") || !strcmp(what, "node-back"))
		on_nodes(j, event, !strcmp(what, "node-lost"));
}
