/* SPDX-License-Identifier: Apache-2.0 */
/* The last words about a migration. */

#include "mover/outcome.h"

#include <inttypes.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/migrate-obstacle.h"

#define OBSTACLES_SHOWN 64

void outcome_obstacles(const json_t *obstacles)
{
	for (size_t i = 0; i < json_array_size(obstacles) && i < OBSTACLES_SHOWN; i++) {
		CLEANUP_FREE char *text = obstacle_text(json_array_get(obstacles, i));

		fprintf(stderr, "obstacle: %s\n", text ? text : "?");
	}
}

static const char *outcome_name(enum migrate_outcome outcome)
{
	static const char *const names[] = {[MIGRATE_HERE] = "here",
					    [MIGRATE_MOVED] = "moved",
					    [MIGRATE_UNDECIDED] = "undecided"};

	return names[outcome];
}

void outcome_json(int rc, const struct migrate_result *result, const struct error *err)
{
	json_t *report = result->report ? json_incref(result->report) : json_object();

	json_object_set_new(report, "outcome", json_string(outcome_name(result->outcome)));
	if (result->untold)
		json_object_set_new(report, "told", json_false());
	if (rc < 0)
		json_object_set_new(report, "error", json_string(err->text));
	if (result->obstacles)
		json_object_set(report, "obstacles", result->obstacles);
	json_dumpf(report, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(report);
}

static uint64_t number(const json_t *report, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(report, name));
}

void outcome_text(const struct migrate_result *result)
{
	const json_t *report = result->report;
	uint64_t ns = number(report, "ns");

	if (result->outcome != MIGRATE_MOVED || !report)
		return;
	printf("moved %" PRIu64 " MiB in %.2f s and %" PRIu64 " rounds, %" PRIu64
	       " MiB sent (%" PRIu64 " pages, %" PRIu64 " zero)",
	       number(report, "memory") >> 20, (double)ns / 1e9, number(report, "round_count"),
	       number(report, "bytes") >> 20, number(report, "pages"),
	       number(report, "zero_pages"));
	if (json_object_get(report, "downtime_ns"))
		printf(", paused for %.1f ms", (double)number(report, "downtime_ns") / 1e6);
	putchar('\n');
}
