/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration took, as either side sees it. */

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/migrate-source.h"
#include "mover/migrate-target.h"

struct number {
	const char *name;
	uint64_t value;
};

const char *migrate_phase(enum migrate_step step)
{
	static const char *const names[STEP_COUNT] = {
		[STEP_CONNECTED] = "check",	[STEP_CHECKED] = "copy",
		[STEP_LOGGING] = "copy",	[STEP_ROUND] = "copy",
		[STEP_PAUSED] = "pause",	[STEP_SENT] = "load",
		[STEP_PREPARED] = "hand over",	[STEP_GIVING] = "hand over",
		[STEP_HELD] = "hand over",	[STEP_GIVEN] = "hand over",
		[STEP_COMMITTED] = "hand over", [STEP_RUNNING] = "done",
		[STEP_REST] = "load",		[STEP_FOLLOW] = "follow",
		[STEP_WHOLE] = "done",		[STEP_ABORTED] = "hand over",
		[STEP_TOLD] = "done",
	};

	return names[step];
}

static void put_numbers(json_t *report, const struct number *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_object_set_new(report, list[i].name, json_integer((json_int_t)list[i].value));
}

/* The time between two steps, if it came to the second. */
static void put_ns(json_t *report, const char *name, uint64_t from, uint64_t to)
{
	if (from && to >= from)
		json_object_set_new(report, name, json_integer((json_int_t)(to - from)));
}

/* What went over the wire. */
static void put_count(json_t *report, const struct copy_count *n)
{
	const struct number list[] = {
		{"bytes", n->bytes}, {"pages", n->pages}, {"zero_pages", n->zero}};

	put_numbers(report, list, ARRAY_SIZE(list));
	if (n->bytes)
		json_object_set_new(report, "compression_ratio",
				    json_real((double)n->pages * PAGE_BYTES / (double)n->bytes));
}

/* Percent of each vCPU. */
static json_t *throttled(const struct brake *b)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < b->n; i++)
		json_array_append_new(list, json_integer(b->percent[i]));
	return list;
}

void source_report(struct source *s, struct migrate_result *ret)
{
	const uint64_t *at = s->step_ns;
	uint64_t runs = at[STEP_FOLLOW] ? at[STEP_FOLLOW] : at[STEP_RUNNING];
	const struct number list[] = {
		{"memory", s->sender.memory},
		{"round_count", s->now.round},
		{"rate", s->now.rate},
		{"dirty_rate", s->now.dirty_rate},
		{"throttle", brake_most(&s->brake)},
		{"streams", s->o.streams},
		{"bandwidth", s->o.bandwidth},
		{"ns", io_now_ns() - s->start},
	};

	put_count(s->report, &s->sender.count);
	put_numbers(s->report, list, ARRAY_SIZE(list));
	json_object_set_new(s->report, "throttled", throttled(&s->brake));
	json_object_set_new(s->report, "tls", json_boolean(s->o.secret.tls));
	put_ns(s->report, "check_ns", s->start, at[STEP_CHECKED]);
	put_ns(s->report, "copy_ns", at[STEP_CHECKED], at[STEP_ROUND]);
	put_ns(s->report, "last_round_and_state_ns", at[STEP_PAUSED], at[STEP_SENT]);
	put_ns(s->report, "load_ns", at[STEP_SENT], at[STEP_PREPARED]);
	put_ns(s->report, "hand_over_ns", at[STEP_PREPARED], runs);
	put_ns(s->report, "downtime_ns", at[STEP_PAUSED], runs);
	put_ns(s->report, "follow_ns", at[STEP_FOLLOW], at[STEP_WHOLE]);
	ret->report = json_incref(s->report);
}

void target_report(struct target *t, struct migrate_result *ret)
{
	const uint64_t *at = t->step_ns;
	const struct number list[] = {
		{"memory", t->receiver.memory},
		{"round_count", t->now.round},
		{"streams", t->streams},
		{"ns", io_now_ns() - t->start},
	};

	ret->report = json_object();
	put_count(ret->report, &t->receiver.count);
	put_numbers(ret->report, list, ARRAY_SIZE(list));
	json_object_set_new(ret->report, "tls", json_boolean(t->o.secret.tls));
	put_ns(ret->report, "copy_ns", at[STEP_LOGGING], at[STEP_SENT]);
	put_ns(ret->report, "load_ns", at[STEP_SENT], at[STEP_PREPARED]);
	put_ns(ret->report, "hand_over_ns", at[STEP_PREPARED], at[STEP_COMMITTED]);
}
