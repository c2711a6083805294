/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints by the clock, as the environment wants them. */

#include "job/save.h"

#include <inttypes.h>

#include "lib/loop.h"

#define SECOND 1000000000ull
#define MOVES_NS (5 * SECOND)
#define RETRY_NS (10 * SECOND) /* at least, unless the interval is less */
#define RETRY_PART 10	       /* of the interval */

static uint64_t interval_ns(const struct job *j)
{
	const json_t *rules = json_object_get(j->spec.environment, "checkpoint");
	json_int_t ms = json_integer_value(json_object_get(rules, "interval"));

	return ms > 0 ? (uint64_t)ms * 1000000 : 0;
}

uint64_t save_clock_retry_ns(uint64_t interval, unsigned failures)
{
	uint64_t ns = interval / RETRY_PART > RETRY_NS ? interval / RETRY_PART : RETRY_NS;

	for (unsigned i = 1; i < failures && ns < interval; i++)
		ns *= 2;
	return ns < interval ? ns : interval;
}

/* What stood in its way may be gone soon, and an interval may be hours of work that are lost. */
static void try_again(struct job *j, const char *reason)
{
	uint64_t interval = interval_ns(j);
	uint64_t ns = save_clock_retry_ns(interval, ++j->clock_failures);

	if (j->ending || !j->clock) {
		job_note(j, "checkpoint: %s", reason);
		return;
	}
	job_note(j, "checkpoint: %s; it is tried again in %" PRIu64 " s", reason,
		 (uint64_t)((ns + SECOND - 1) / SECOND));
	loop_set_timer(j->clock, ns, interval);
}

static void on_saved(void *arg, int code, const char *reason, const json_t *value)
{
	struct job *j = arg;

	if (code) {
		try_again(j, reason);
		return;
	}
	j->clock_failures = 0;
	log_info(&j->log, "job", "checkpoint %" JSON_INTEGER_FORMAT " in %s",
		 json_integer_value(json_object_get(value, "checkpoint")),
		 json_string_value(json_object_get(value, "folder")));
}

static const struct save_ops ops = {.over = on_saved};

static void on_time(void *arg)
{
	struct job *j = arg;
	uint64_t interval = interval_ns(j);
	struct error err;

	/* VMs that move are saved when they have arrived, not an interval later. */
	if (j->migrate)
		loop_set_timer(j->clock, interval < MOVES_NS ? interval : MOVES_NS, interval);
	else if (save_begin(j, NULL, &ops, j, &err))
		try_again(j, err.text);
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
