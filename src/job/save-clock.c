/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints by the clock, as the environment wants them. */

#include "job/save.h"

#include <inttypes.h>

#include "lib/loop.h"

#define MOVES_NS (5ull * 1000000000)

static void on_saved(void *arg, int code, const char *reason, const json_t *value)
{
	struct job *j = arg;

	if (code)
		job_note(j, "checkpoint: %s", reason);
	else
		log_info(&j->log, "job", "checkpoint %" JSON_INTEGER_FORMAT " in %s",
			 json_integer_value(json_object_get(value, "checkpoint")),
			 json_string_value(json_object_get(value, "folder")));
}

static uint64_t interval_ns(const struct job *j)
{
	const json_t *rules = json_object_get(j->spec.environment, "checkpoint");
	json_int_t ms = json_integer_value(json_object_get(rules, "interval"));

	return ms > 0 ? (uint64_t)ms * 1000000 : 0;
}

static void on_time(void *arg)
{
	struct job *j = arg;
	uint64_t interval = interval_ns(j);
	struct error err;

	/* VMs that move are saved when they have arrived, not an interval later. */
	if (j->migrate)
		loop_set_timer(j->clock, interval < MOVES_NS ? interval : MOVES_NS, interval);
	else if (save_begin(j, NULL, on_saved, j, &err))
		job_note(j, "checkpoint: %s", err.text);
}

void save_clock_start(struct job *j)
{
	uint64_t interval = interval_ns(j);

	if (!interval)
		return;
	if (loop_add_timer(j->loop, on_time, j, &j->clock) ||
	    loop_set_timer(j->clock, interval, interval))
		job_note(j, "no timer: there are no checkpoints by the clock");
}

void save_clock_stop(struct job *j)
{
	loop_remove(&j->clock);
}
