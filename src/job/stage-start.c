/* SPDX-License-Identifier: Apache-2.0 */
/* Stages image, start and ready: all VMs run, and the agent in each of them has answered. */

#include <errno.h>
#include <string.h>

#include "job/job.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define START_MS (120u * 1000)
#define RESTORE_MS (3600u * 1000)
#define RESUME_MS 60000u
#define IMAGE_MS (3600u * 1000)

/* By its digest: all VMs of the cluster are of the same bytes. */
static json_t *reference(const struct job *j)
{
	return json_sprintf("%s@sha256:%s",
			    json_string_value(json_object_get(j->spec.image, "name")),
			    json_string_value(json_object_get(j->spec.image, "digest")));
}

/* -------- image -------- */

/* A node that cannot fetch images has it in a shared folder, or says so when it starts. */
static bool cannot_fetch(const struct gather *answer)
{
	const json_t *one;
	size_t i;

	json_array_foreach (answer->errors, i, one)
		if (json_integer_value(json_object_get(one, "errno")) != ENOSYS)
			return false;
	return !answer->code;
}

static void on_image(void *arg, const struct gather *answer)
{
	if (cannot_fetch(answer) || !job_failed(arg, answer, "image"))
		job_next(arg);
}

/* Here it is already. */
static void image(struct job *j)
{
	CLEANUP_FREE char *holders = job_holders(j);
	json_t *request;

	if (holders && !strcmp(holders, "0")) {
		job_next(j);
		return;
	}
	request = json_pack("{s:s, s:o, s:[O]}", "op", "image", "image", reference(j), "from",
			    json_array_get(j->spec.nodes, 0));
	job_ask(j, request, NULL, IMAGE_MS, on_image);
}

const struct stage stage_image = {.name = "image", .begin = image};

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
			  "hosts", j->hosts, "image", reference(j), "from", j->spec.restore);

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
