/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, sizes and durations: a constraint is a list of ranges, ends included. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "env/schema.h"
#include "env/type.h"
#include "lib/cleanup.h"

#define MAX_RANGES 256

struct unit_name {
	const char *name;
	int64_t factor;
};

static const struct unit_name sizes[] = {{"T", 1ll << 40}, {"G", 1ll << 30}, {"M", 1ll << 20},
					 {"K", 1ll << 10}, {"", 1},	     {0}};
static const struct unit_name durations[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {"", 1}, {0}};
static const struct unit_name counts[] = {{"", 1}, {0}};

static const struct unit_name *units_of(const struct field *f)
{
	return f->unit == UNIT_SIZE ? sizes : f->unit == UNIT_DURATION ? durations : counts;
}

static const char *kind_of(const struct field *f)
{
	return f->unit == UNIT_SIZE	  ? "a size, like 512M or 1G..8G"
	       : f->unit == UNIT_DURATION ? "a duration, like 90s or 1m..60m, or off"
					  : "a number, like 4 or 1..8";
}

/* One end of a range, which is n bytes of text. */
static bool parse_end(const struct field *f, const char *text, size_t n, int64_t *ret)
{
	int64_t value = 0;
	size_t i = 0;

	if (f->unit == UNIT_DURATION && n == 3 && !strncmp(text, "off", 3)) {
		*ret = NUMBER_OFF;
		return true;
	}
	for (; i < n && text[i] >= '0' && text[i] <= '9'; i++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, text[i] - '0', &value))
			return false;
	if (!i)
		return false;
	for (const struct unit_name *u = units_of(f); u->name; u++)
		if (strlen(u->name) == n - i && !strncmp(u->name, text + i, n - i))
			return !__builtin_mul_overflow(value, u->factor, ret);
	return false;
}

static bool in_domain(const struct field *f, int64_t value)
{
	return (value >= f->min && value <= f->max) ||
	       (f->unit == UNIT_DURATION && value == NUMBER_OFF);
}

static int64_t top_of(const struct field *f)
{
	return f->unit == UNIT_DURATION ? NUMBER_OFF : f->max;
}

static void show_end(const struct field *f, int64_t value, struct args *ret)
{
	const struct unit_name *u = units_of(f);

	if (value == NUMBER_OFF) {
		args_extend(ret, "off");
		return;
	}
	while (value % u->factor || (!value && u->factor > 1))
		u++;
	args_extend(ret, "%" PRId64 "%s", value / u->factor, u->name);
}

static bool outside(const struct source *s, const struct field *f, const struct node *node)
{
	struct args text = {0};

	args_add(&text, "%s: \"%s\" is not within ", f->path, node->text);
	show_end(f, f->min, &text);
	args_extend(&text, "..");
	show_end(f, f->max, &text);
	source_problem(s, node, "%s", text.failed ? "out of memory" : text.v[0]);
	args_done(&text);
	return false;
}

/* "LOW..HIGH", "LOW..", "..HIGH" or a value. */
static bool read_range(const struct source *s, const struct field *f, const struct node *node,
		       json_t *ranges)
{
	const char *text = node->kind == NODE_TEXT ? node->text : "";
	const char *dots = strstr(text, "..");
	int64_t low = f->min, high = top_of(f);
	bool good;

	if (dots)
		good = (dots == text || parse_end(f, text, (size_t)(dots - text), &low)) &&
		       (!dots[2] || parse_end(f, dots + 2, strlen(dots + 2), &high)) &&
		       strlen(text) > 2;
	else
		good = parse_end(f, text, strlen(text), &low);
	if (!good)
		return source_problem(s, node, "%s must be %s", f->path, kind_of(f));
	if (!dots)
		high = low;
	if (!in_domain(f, low) || !in_domain(f, high))
		return outside(s, f, node);
	if (low > high)
		return source_problem(s, node, "%s: \"%s\" has its smaller end behind", f->path,
				      text);
	json_array_append_new(ranges, json_pack("[I, I]", (json_int_t)low, (json_int_t)high));
	return true;
}

static int64_t low_of(const json_t *range)
{
	return json_integer_value(json_array_get(range, 0));
}

static int64_t high_of(const json_t *range)
{
	return json_integer_value(json_array_get(range, 1));
}

static int compare(const void *a, const void *b)
{
	int64_t x = low_of(*(json_t *const *)a), y = low_of(*(json_t *const *)b);

	return x < y ? -1 : x > y;
}

/* Sorted, and those that touch made one: the same numbers, the same list. Takes it. */
static json_t *ranges_tidy(json_t *ranges)
{
	size_t n = json_array_size(ranges);
	CLEANUP_FREE json_t **item = calloc(n + 1, sizeof(json_t *));
	json_t *tidy = json_array();
	int64_t low = 0, high = 0;

	for (size_t i = 0; item && i < n; i++)
		item[i] = json_array_get(ranges, i);
	if (item)
		qsort(item, n, sizeof(json_t *), compare);
	for (size_t i = 0; item && i < n; i++) {
		if (i && low_of(item[i]) <= high + (high < NUMBER_OFF)) {
			high = high_of(item[i]) > high ? high_of(item[i]) : high;
			continue;
		}
		if (i)
			json_array_append_new(tidy, json_pack("[I, I]", low, high));
		low = low_of(item[i]);
		high = high_of(item[i]);
	}
	if (n)
		json_array_append_new(tidy, json_pack("[I, I]", low, high));
	json_decref(ranges);
	return tidy;
}

static json_t *number_read(const struct source *s, const struct field *f, const struct node *node)
{
	json_t *ranges = json_array();
	bool good = true;

	if (node->kind != NODE_LIST)
		good = read_range(s, f, node, ranges);
	else if (!node->n)
		good = source_problem(s, node, "%s: an empty list leaves no value", f->path);
	else if (node->n > MAX_RANGES)
		good = source_problem(s, node, "%s has more than %u ranges", f->path, MAX_RANGES);
	for (size_t i = 0; node->kind == NODE_LIST && i < node->n && i < MAX_RANGES; i++)
		good &= read_range(s, f, node->item[i], ranges);
	if (good)
		return ranges_tidy(ranges);
	json_decref(ranges);
	return NULL;
}

/* What is in both, of which each is tidy: of two ranges the one that ends first is done with. */
static json_t *intersect(const json_t *a, const json_t *b)
{
	size_t i = 0, j = 0, na = json_array_size(a), nb = json_array_size(b);
	json_t *both = json_array();

	while (i < na && j < nb) {
		const json_t *x = json_array_get(a, i), *y = json_array_get(b, j);
		int64_t low = low_of(x) > low_of(y) ? low_of(x) : low_of(y);
		int64_t high = high_of(x) < high_of(y) ? high_of(x) : high_of(y);

		if (low <= high)
			json_array_append_new(both, json_pack("[I, I]", low, high));
		if (high_of(x) < high_of(y))
			i++;
		else
			j++;
	}
	return ranges_tidy(both);
}

/* All that the constraints leave. */
static json_t *all_of(const struct field *f, const json_t *wants)
{
	json_t *left = json_pack("[[I, I]]", (json_int_t)f->min, (json_int_t)top_of(f));
	const json_t *want;
	size_t i;

	json_array_foreach (wants, i, want) {
		json_t *both = intersect(left, want);

		json_decref(left);
		left = both;
	}
	return left;
}

static enum verdict number_meet(const struct field *f, const json_t *wants, struct meeting *ret)
{
	json_t *left = all_of(f, wants);
	const json_t *range = json_array_get(left, 0);
	enum verdict verdict = MEET_OPEN;

	if (!range) {
		verdict = MEET_CONFLICT;
		ret->why = strdup("no value is in all of these");
	} else if (json_array_size(left) == 1 && low_of(range) == high_of(range)) {
		verdict = MEET_ONE;
		ret->value = json_integer(low_of(range));
	}
	json_decref(left);
	return verdict;
}

static bool number_holds(const struct field *f, const json_t *want, const json_t *value)
{
	int64_t v = json_integer_value(value);
	const json_t *range;
	size_t i;

	json_array_foreach (want, i, range)
		if (low_of(range) <= v && v <= high_of(range))
			return true;
	return false;
}

/* The end of a range between which and v there is nothing of the range; v inside it. */
static int64_t near_end(const json_t *range, int64_t v)
{
	return v < low_of(range) ? low_of(range) : v > high_of(range) ? high_of(range) : v;
}

static json_t *number_nearest(const struct field *f, const json_t *wants, const json_t *to)
{
	json_t *left = all_of(f, wants);
	int64_t v = to ? json_integer_value(to) : f->min, best = -1;
	const json_t *range;
	size_t i;

	json_array_foreach (left, i, range) {
		int64_t near = near_end(range, v);

		if (best < 0 || llabs(near - v) < llabs(best - v))
			best = near;
	}
	json_decref(left);
	return best < 0 ? NULL : json_integer(best);
}

static void number_show(const struct field *f, const json_t *want, struct args *ret)
{
	const json_t *range;
	size_t i;

	if (json_array_size(want) != 1)
		args_extend(ret, "[");
	json_array_foreach (want, i, range) {
		bool top = high_of(range) == top_of(f) && low_of(range) != high_of(range);

		if (i)
			args_extend(ret, ", ");
		if (low_of(range) != f->min || low_of(range) == high_of(range))
			show_end(f, low_of(range), ret);
		else if (top)
			show_end(f, low_of(range), ret);
		if (low_of(range) != high_of(range))
			args_extend(ret, "..");
		if (low_of(range) != high_of(range) && !top)
			show_end(f, high_of(range), ret);
	}
	if (json_array_size(want) != 1)
		args_extend(ret, "]");
}

const struct type type_number = {
	.name = "number",
	.read = number_read,
	.meet = number_meet,
	.holds = number_holds,
	.show = number_show,
	.nearest = number_nearest,
};
