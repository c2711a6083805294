/* SPDX-License-Identifier: Apache-2.0 */
/* How an operation gets on, for people and programs. */

#include "mover/show.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MS 1000000ull
#define TEXT_SIZE 256

static const char *const names[] = {
	[SHOW_AUTO] = "auto", [SHOW_LINE] = "line", [SHOW_TEXT] = "text",
	[SHOW_JSON] = "json", [SHOW_NONE] = "none",
};

int show_parse(const char *text, enum show_how *ret, struct error *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*ret = (enum show_how)i;
			return 0;
		}
	return error_set(err, -EINVAL, "--progress is auto, line, text, json or none, not \"%s\"",
			 text);
}

void show_begin(struct show *s, const char *operation, enum show_how how)
{
	if (how == SHOW_AUTO)
		how = isatty(STDERR_FILENO) ? SHOW_LINE : SHOW_NONE;
	*s = (struct show){.how = how, .operation = operation, .start_ns = io_now_ns()};
}

static uint64_t remaining_ms(const struct show_now *n)
{
	if (!n->rate || n->total < n->done)
		return 0;
	return (uint64_t)((double)(n->total - n->done) * 1e3 / (double)n->rate);
}

static void print_json(const struct show *s, const struct show_now *n)
{
	json_t *line = json_pack(
		"{s:s,s:s,s:I,s:I,s:I,s:I}", "operation", s->operation, "phase", n->phase,
		"elapsed_ms", (json_int_t)((io_now_ns() - s->start_ns) / MS), "done",
		(json_int_t)n->done, "total", (json_int_t)n->total, "rate", (json_int_t)n->rate);

	if (n->total && n->rate)
		json_object_set_new(line, "remaining_ms",
				    json_integer((json_int_t)remaining_ms(n)));
	if (n->round) {
		json_object_set_new(line, "round", json_integer((json_int_t)n->round));
		json_object_set_new(line, "dirty_rate", json_integer((json_int_t)n->dirty_rate));
		json_object_set_new(line, "downtime_ms", json_integer((json_int_t)n->downtime_ms));
		json_object_set_new(line, "throttle", json_integer(n->throttle));
	}
	json_dumpf(line, stderr, JSON_COMPACT | JSON_SORT_KEYS);
	fputc('\n', stderr);
	json_decref(line);
}

/* Appends to text; what has no room is left out. */
__attribute__((format(printf, 2, 3))) static void put(char text[TEXT_SIZE], const char *fmt, ...)
{
	size_t n = strlen(text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + n, TEXT_SIZE - n, fmt, args);
	va_end(args);
}

static void describe(const struct show *s, const struct show_now *n, char text[TEXT_SIZE])
{
	*text = '\0';
	put(text, "%s: %s", s->operation, n->phase);
	if (n->round)
		put(text, ", round %" PRIu64, n->round);
	if (n->total)
		put(text, ", %u %% of %" PRIu64 " MiB",
		    (unsigned)((double)n->done * 100 / (double)n->total), n->total >> 20);
	else if (n->done)
		put(text, ", %" PRIu64 " MiB", n->done >> 20);
	if (n->rate)
		put(text, ", %" PRIu64 " MiB/s", n->rate >> 20);
	if (n->total && n->rate)
		put(text, ", %.1f s left", (double)remaining_ms(n) / 1e3);
	if (n->round && n->dirty_rate)
		put(text, ", writes %" PRIu64 " MiB/s, pause of %" PRIu64 " ms",
		    n->dirty_rate >> 20, n->downtime_ms);
	if (n->throttle)
		put(text, ", throttled by %u %%", n->throttle);
}

void show_now(struct show *s, const struct show_now *now)
{
	static const uint64_t every_ms[] = {
		[SHOW_LINE] = 200, [SHOW_TEXT] = 3000, [SHOW_JSON] = 1000};
	uint64_t time = io_now_ns();
	char text[TEXT_SIZE];

	if (s->how == SHOW_NONE || s->how == SHOW_AUTO)
		return;
	if (s->last_ns && s->phase == now->phase && time - s->last_ns < every_ms[s->how] * MS)
		return;
	s->last_ns = time;
	s->phase = now->phase;
	if (s->how == SHOW_JSON) {
		print_json(s, now);
		return;
	}
	describe(s, now, text);
	/* "\033[K" takes away what a longer line left. */
	fprintf(stderr, s->how == SHOW_LINE ? "\r%s\033[K" : "%s\n", text);
	s->open = s->how == SHOW_LINE;
}

void show_end(struct show *s)
{
	if (s->open)
		fputs("\r\033[K", stderr);
	s->open = false;
}
