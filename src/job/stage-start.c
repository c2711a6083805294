/* SPDX-License-Identifier: Apache-2.0 */
/* Stages start and ready: all VMs run, and the agent in each of them has answered. */

#include <errno.h>
#include <string.h>

#include "job/job.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define START_MS (120u * 1000)
#define RESTORE_MS (3600u * 1000)
#define RESUME_MS 60000u

/* By its digest: all VMs of the cluster are of the same bytes. */
json_t *job_image(const struct job *j)
{
	return json_sprintf("%s@sha256:%s",
			    json_string_value(json_object_get(j->spec.image, "name")),
			    json_string_value(json_object_get(j->spec.image, "digest")));
}

/* -------- start -------- */

static void on_started(void *arg, const struct gather *answer)
{
	if (!job_failed(arg, answer, "start"))
		job_next(arg);
}

/* All have what they were: none has sent a frame before all can take it. */
static void on_restored(void *arg, const struct gather *answer)
{
	if (!job_failed(arg, answer, "restore"))
		job_ask(arg, json_pack("{s:s, s:b}", "op", "resume", "clock", 1), NULL, RESUME_MS,
			on_started);
}

static void start(struct job *j)
{
	json_t *request =
		json_pack("{s:s, s:O, s:o, s:O*}", "op", j->spec.restore ? "restore" : "start",
			  "hosts", j->hosts, "image", job_image(j), "from", j->spec.restore);

	for (size_t i = 0; i < j->nvms; i++)
		if (j->vm[i].state == VM_RESERVED)
			j->vm[i].state = VM_STARTED;
	job_ask(j, request, NULL, j->spec.restore ? RESTORE_MS : START_MS,
		j->spec.restore ? on_restored : on_started);
}

const struct stage stage_start = {.name = "start", .begin = start};

/* -------- ready -------- */

static size_t count(const struct job *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->nvms; i++)
		n += j->vm[i].state == VM_READY;
	return n;
}

void ready_count(struct job *j)
{
	size_t n = count(j);

	if (j->stage != &stage_ready)
		return;
	terminals_tell(j->terminals,
		       json_pack("{s:s, s:s, s:I, s:I}", "event", "progress", "stage", "ready",
				 "done", (json_int_t)n, "of", (json_int_t)j->nvms));
	if (n == j->nvms)
		job_next(j);
}

static void ready(struct job *j)
{
	loop_set_timer(j->timer, j->spec.ready_s * 1000000000ull, 0);
	ready_count(j);
}

static void ready_timeout(struct job *j)
{
	const struct guest *vm = j->vm;

	while (vm->state == VM_READY)
		vm++;
	job_fail(j, "%zu of %zu VMs are not ready after %u s, of them %s at node %s",
		 j->nvms - count(j), j->nvms, j->spec.ready_s, vm->name, j->node[vm->place].name);
}

const struct stage stage_ready = {.name = "ready", .begin = ready, .timeout = ready_timeout};
