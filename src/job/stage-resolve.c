/* SPDX-License-Identifier: Apache-2.0 */
/* Stages resolve and place: what the nodes say of themselves, and which of them get VMs. */

#include <errno.h>
#include <stdlib.h>

#include "job/former.h"
#include "job/mpi.h"
#include "job/plan.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define JOIN_NS (20ull * 1000000000)
#define FREE_MS 30000u /* that nodes have to end an earlier cluster of that name */

/* -------- resolve -------- */

static void on_facts(void *arg, const struct gather *answer)
{
	struct job *j = arg;
	const json_t *one;
	size_t i;

	if (answer->code) {
		job_failed(j, answer, "the nodes' facts");
		return;
	}
	for (i = 0; i < j->nnodes; i++) {
		json_decref(j->node[i].facts);
		j->node[i].facts = json_incref((json_t *)gather_value(answer, (uint32_t)i));
	}
	json_array_foreach (answer->errors, i, one) {
		size_t place = (size_t)json_integer_value(json_object_get(one, "node"));

		if (place < j->nnodes)
			error_set(&j->node[place].gone, 0, "%s",
				  json_string_value(json_object_get(one, "error")));
	}
	job_next(j);
}

static void ask_facts(struct job *j)
{
	nodes_ask(j->nodes, json_pack("{s:s}", "op", "facts"), NULL, 0, on_facts, j);
}

static void on_freed(void *arg, const struct gather *answer)
{
	struct job *j = arg;

	/* Where that matters the reservation, or a VM's start, says who is in its way. */
	if (!gather_is_good(answer))
		log_warn(&j->log, "resolve", "%s could not be ended everywhere", j->before);
	ask_facts(j);
}

void former_ended(struct job *j)
{
	if (*j->before)
		nodes_ask(j->nodes, json_pack("{s:s, s:s}", "op", "release", "cluster", j->before),
			  NULL, FREE_MS, on_freed, j);
	else
		ask_facts(j);
}

/* What is free is told when what is left of an earlier cluster has gone. */
static void on_joined(struct job *j)
{
	if (j->spec.former)
		former_end(j);
	else
		former_ended(j);
}

static void resolve(struct job *j)
{
	if (j->joined)
		on_joined(j);
	else
		loop_set_timer(j->timer, JOIN_NS, 0);
}

static void resolve_timeout(struct job *j)
{
	if (!j->joined)
		job_fail(j, "the daemon of this node does not answer at %s", j->spec.socket);
}

const struct stage stage_resolve = {
	.name = "resolve", .begin = resolve, .timeout = resolve_timeout, .joined = on_joined};

/* -------- place -------- */

bool place_is_out(const struct job *j, size_t place)
{
	return (place == 0 && !j->spec.self) || place >= j->nnodes - j->spec.others;
}

static int find_places(struct job *j, struct error *err)
{
	CLEANUP_FREE struct plan_node *nodes = calloc(j->nnodes, sizeof(*nodes));
	CLEANUP_FREE uint32_t *plan = calloc(j->nvms, sizeof(*plan));
	int r;

	if (!nodes || !plan)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < j->nnodes; i++)
		nodes[i] =
			(struct plan_node){.name = j->node[i].name,
					   .out = place_is_out(j, i),
					   .gone = *j->node[i].gone.text ? j->node[i].gone.text
						   : j->node[i].facts	 ? NULL
								      : "it says nothing of itself",
					   .facts = j->node[i].facts};
	r = plan_make(j->spec.environment, nodes, j->nnodes, j->nvms, plan, err);
	for (size_t i = 0; !r && i < j->nvms; i++) {
		j->vm[i].place = plan[i];
		j->node[plan[i]].vms++;
	}
	return r;
}

/* Of nodes that are not there people hear even if the others do. */
static void tell_gone(struct job *j)
{
	unsigned told = 0;

	for (size_t i = 0; i < j->nnodes && told < 8; i++)
		if (*j->node[i].gone.text) {
			job_note(j, "node %s takes no VM: %s", j->node[i].name,
				 j->node[i].gone.text);
			told++;
		}
}

/* As many ranks as the program is to have need room in the VMs, wherever those are. */
static int check_ranks(const struct job *j, struct error *err)
{
	json_t *names = json_array();
	struct mpi mpi = {.environment = j->spec.environment, .vms = names};
	unsigned long ranks;
	int r;

	for (size_t i = 0; i < j->nvms; i++)
		json_array_append_new(names, json_string(j->vm[i].name));
	r = mpi_launches(&mpi, j->spec.program) ? mpi_ranks(&mpi, &ranks, err) : 0;
	json_decref(names);
	return r;
}

static void place(struct job *j)
{
	struct error err;

	tell_gone(j);
	if (check_ranks(j, &err) || find_places(j, &err))
		job_fail(j, "%s", err.text);
	else
		job_next(j);
}

const struct stage stage_place = {.name = "place", .begin = place};
