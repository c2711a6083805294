/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints by the clock, as the environment wants them. */

#include "job/save.h"

#include <inttypes.h>

#include "lib/loop.h"

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

static void on_time(void *arg)
{
	struct job *j = arg;
	struct error err;

	if (save_begin(j, NULL, on_saved, j, &err))
		job_note(j, "checkpoint: %s", err.text);
}

void save_clock_start(struct job *j)
{
	const json_t *rules = json_object_get(j->spec.environment, "checkpoint");
	json_int_t ms = json_integer_value(json_object_get(rules, "interval"));

	if (ms <= 0)
		return;
	if (loop_add_timer(j->loop, on_time, j, &j->clock) ||
	    loop_set_timer(j->clock, (uint64_t)ms * 1000000, (uint64_t)ms * 1000000))
		job_note(j, "no timer: there are no checkpoints by the clock");
}

void save_clock_stop(struct job *j)
{
	loop_remove(&j->clock);
}
