/* SPDX-License-Identifier: Apache-2.0 */
/* Stage end: what the nodes have of the cluster is ended and given back, and its terminals leave.
 */

#include <stdlib.h>

#include "job/job.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define STOP_MS 60000u
#define RELEASE_MS 20000u
#define BACK_NS (5ull * 1000000000)	 /* for the daemon of this node to come back */
#define BACK_TIMES 3u			 /* that it may do so */
#define FAREWELL_NS (10ull * 1000000000) /* for terminals to read the rest */
#define ATTEND_NS (3ull * 1000000000)	 /* for whoever started it to attach */
#define LOOK_NS 20000000ull

/* -------- farewell -------- */

static void look(struct job *j)
{
	if (terminals_are_done(j->terminals)) {
		j->stage = NULL;
		loop_stop(j->loop);
	}
}

/* The timer ticks until the terminals have gone; a limit is the stage's own time. */
static void farewell(struct job *j)
{
	/* Whoever started it is about to attach, and wants to know why it has ended so soon. */
	if (!j->attended) {
		j->unheard = true;
		loop_set_timer(j->timer, ATTEND_NS, 0);
		return;
	}
	job_leave_folder(j);
	terminals_finish(j->terminals,
			 json_pack("{s:s, s:i, s:s*}", "event", "ended", "code", j->code, "why",
				   *j->why.text ? j->why.text : NULL));
	j->waits = 0;
	j->released = true;
	loop_set_timer(j->timer, LOOK_NS, LOOK_NS);
	look(j);
}

/* -------- giving back -------- */

static void tell_failures(struct job *j, const struct gather *answer, const char *what)
{
	const json_t *one;
	size_t i;

	if (answer->code)
		job_note(j, "%s: %s", what, answer->why.text);
	json_array_foreach (answer->errors, i, one)
		if (i < 8)
			job_note(j, "%s: node %s: %s", what, job_name_of(j, one),
				 json_string_value(json_object_get(one, "error")));
}

/* The daemon of this node died meanwhile: all begins anew when it is back. */
static bool is_cut_off(struct job *j, const struct gather *answer)
{
	if (!answer->code || j->joined || j->waits >= BACK_TIMES)
		return false;
	loop_set_timer(j->timer, BACK_NS, 0);
	return true;
}

static void on_released(void *arg, const struct gather *answer)
{
	struct job *j = arg;

	if (is_cut_off(j, answer))
		return;
	/* What is not released here ends by itself with the grace time of its node. */
	tell_failures(j, answer, "release");
	for (size_t i = 0; i < j->nnodes; i++)
		if (nodeset_has(&answer->ok, (uint32_t)i))
			j->node[i].holds = false;
	farewell(j);
}

/* Who is lost is not asked: what it has ends with its grace time. A new string. */
static char *holders_there(const struct job *j)
{
	struct nodeset set = {0};
	char *text;

	for (size_t i = 0; i < j->nnodes; i++)
		if (j->node[i].holds && !*j->node[i].gone.text)
			nodeset_add(&set, (uint32_t)i, (uint32_t)i);
	text = nodeset_format(&set);
	nodeset_done(&set);
	return text;
}

static void release(struct job *j)
{
	CLEANUP_FREE char *there = holders_there(j);

	if (there && *there)
		job_ask(j, json_pack("{s:s}", "op", "release"), there, RELEASE_MS, on_released);
	else
		farewell(j);
}

/* -------- stopping -------- */

static bool any_started(const struct job *j)
{
	for (size_t i = 0; i < j->nvms; i++)
		if (j->vm[i].state > VM_RESERVED && j->vm[i].state != VM_ENDED)
			return true;
	return false;
}

/* A VM whose files nobody sees any more needs no shutdown. */
static bool leaves_files(const struct job *j)
{
	return json_object_size(json_object_get(j->spec.environment, "shares")) ||
	       json_object_size(json_object_get(j->spec.environment, "volumes"));
}

static void on_stopped(void *arg, const struct gather *answer)
{
	if (is_cut_off(arg, answer))
		return;
	tell_failures(arg, answer, "stop");
	release(arg);
}

static void give_back(struct job *j)
{
	CLEANUP_FREE char *there = holders_there(j);

	loop_set_timer(j->timer, 0, 0);
	if (there && *there && any_started(j))
		job_ask(j, json_pack("{s:s, s:b}", "op", "stop", "kill", !leaves_files(j)), there,
			STOP_MS, on_stopped);
	else
		release(j);
}

/* -------- the stage -------- */

static void end(struct job *j)
{
	if (j->joined)
		give_back(j);
	else
		loop_set_timer(j->timer, BACK_NS, 0);
}

void job_attended(struct job *j)
{
	j->attended = true;
	if (j->unheard && !j->released)
		farewell(j);
}

static void on_time(struct job *j)
{
	if (j->unheard && !j->released) {
		job_attended(j);
	} else if (!j->released) {
		job_note(j, "the daemon of this node is not there: what the nodes have of the "
			    "cluster ends with their grace time");
		farewell(j);
	} else {
		look(j);
		if (++j->waits > FAREWELL_NS / LOOK_NS)
			loop_stop(j->loop);
	}
}

static void rejoined(struct job *j)
{
	if (j->released || j->unheard || j->waits++ >= BACK_TIMES)
		return;
	nodes_forget(j->nodes, j);
	give_back(j);
}

const struct stage stage_end = {
	.name = "end", .begin = end, .timeout = on_time, .joined = rejoined};
