/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of places: sorted ranges in an array. */

#include "tree/nodeset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

void nodeset_done(struct nodeset *set)
{
	free(set->range);
	*set = (struct nodeset){0};
}

/* The first range that ends at place or behind it. */
static size_t find(const struct nodeset *set, uint32_t place)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set->range[mid].last < place)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int reserve(struct nodeset *set)
{
	size_t more = set->room ? set->room * 2 : 4;
	struct nodeset_range *bigger;

	if (set->n < set->room)
		return 0;
	bigger = realloc(set->range, more * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	set->range = bigger;
	set->room = more;
	return 0;
}

/* Ranges from i up to j become the one given. There is room. */
static void replace(struct nodeset *set, size_t i, size_t j, const struct nodeset_range *with,
		    size_t n)
{
	if (j < set->n)
		memmove(set->range + i + n, set->range + j, (set->n - j) * sizeof(*with));
	set->n = set->n - (j - i) + n;
	if (n)
		memcpy(set->range + i, with, n * sizeof(*with));
}

int nodeset_add(struct nodeset *set, uint32_t first, uint32_t last)
{
	struct nodeset_range r = {first, last};
	size_t i, j;

	if (reserve(set) < 0)
		return -ENOMEM;
	/* What only touches it becomes one with it as well. */
	i = j = find(set, first ? first - 1 : 0);
	for (; j < set->n && set->range[j].first <= last + 1; j++) {
		r.first = set->range[j].first < r.first ? set->range[j].first : r.first;
		r.last = set->range[j].last > r.last ? set->range[j].last : r.last;
	}
	replace(set, i, j, &r, 1);
	return 0;
}

int nodeset_remove(struct nodeset *set, uint32_t first, uint32_t last)
{
	struct nodeset_range rest[2];
	size_t i = find(set, first), j = i, n = 0;

	if (reserve(set) < 0)
		return -ENOMEM;
	for (; j < set->n && set->range[j].first <= last; j++) {
		if (set->range[j].first < first)
			rest[n++] = (struct nodeset_range){set->range[j].first, first - 1};
		if (set->range[j].last > last)
			rest[n++] = (struct nodeset_range){last + 1, set->range[j].last};
	}
	replace(set, i, j, rest, n);
	return 0;
}

static int each(struct nodeset *set, const struct nodeset *other,
		int (*fn)(struct nodeset *set, uint32_t first, uint32_t last))
{
	struct nodeset copy = {0};
	int rc = nodeset_slice(set, 0, UINT32_MAX - 1, &copy);

	for (size_t i = 0; rc == 0 && i < other->n; i++)
		rc = fn(&copy, other->range[i].first, other->range[i].last);
	if (rc == 0) {
		nodeset_done(set);
		*set = copy;
	} else {
		nodeset_done(&copy);
	}
	return rc;
}

int nodeset_merge(struct nodeset *set, const struct nodeset *other)
{
	return each(set, other, nodeset_add);
}

int nodeset_subtract(struct nodeset *set, const struct nodeset *other)
{
	return each(set, other, nodeset_remove);
}

int nodeset_slice(const struct nodeset *set, uint32_t first, uint32_t last, struct nodeset *ret)
{
	struct nodeset slice = {0};

	for (size_t i = find(set, first); i < set->n && set->range[i].first <= last; i++) {
		struct nodeset_range r = set->range[i];

		if (reserve(&slice) < 0) {
			nodeset_done(&slice);
			return -ENOMEM;
		}
		r.first = r.first < first ? first : r.first;
		r.last = r.last > last ? last : r.last;
		slice.range[slice.n++] = r;
	}
	*ret = slice;
	return 0;
}

bool nodeset_has(const struct nodeset *set, uint32_t place)
{
	size_t i = find(set, place);

	return i < set->n && set->range[i].first <= place;
}

bool nodeset_contains(const struct nodeset *set, const struct nodeset *other)
{
	for (size_t i = 0; i < other->n; i++) {
		size_t j = find(set, other->range[i].first);

		if (j == set->n || set->range[j].first > other->range[i].first ||
		    set->range[j].last < other->range[i].last)
			return false;
	}
	return true;
}

uint32_t nodeset_count(const struct nodeset *set)
{
	uint32_t count = 0;

	for (size_t i = 0; i < set->n; i++)
		count += set->range[i].last - set->range[i].first + 1;
	return count;
}

static int parse_place(const char **p, uint32_t *ret, struct error *err)
{
	const char *begin = *p;
	uint32_t value = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++) {
		value = value * 10 + (uint32_t)(**p - '0');
		if (value >= NODESET_PLACES)
			return error_set(err, -ERANGE, "place %.20s in a list of nodes: at most %u",
					 begin, NODESET_PLACES - 1);
	}
	if (*p == begin)
		return error_set(err, -EINVAL,
				 "a list of nodes is as \"0-99,120\": no number at \"%.20s\"",
				 begin);
	*ret = value;
	return 0;
}

static int parse_range(const char **p, struct nodeset *set, struct error *err)
{
	const char *begin = *p;
	uint32_t first = 0, last;
	int rc = parse_place(p, &first, err);

	last = first;
	if (rc == 0 && **p == '-') {
		(*p)++;
		rc = parse_place(p, &last, err);
	}
	if (rc < 0)
		return rc;
	if (last < first)
		return error_set(err, -EINVAL, "a list of nodes that goes backwards at \"%.20s\"",
				 begin);
	if (nodeset_add(set, first, last) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

int nodeset_parse(const char *text, struct nodeset *ret, struct error *err)
{
	struct nodeset set = {0};
	int rc = 0;

	while (rc == 0 && *text) {
		rc = parse_range(&text, &set, err);
		if (rc == 0 && *text && (*text != ',' || !text[1]))
			rc = error_set(err, -EINVAL,
				       "a list of nodes is as \"0-99,120\": not \"%.20s\"", text);
		else if (rc == 0 && *text)
			text++;
	}
	if (rc == 0)
		*ret = set;
	else
		nodeset_done(&set);
	return rc;
}

char *nodeset_format(const struct nodeset *set)
{
	CLEANUP_FREE char *text = NULL;
	size_t size;
	CLEANUP_FILE FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (size_t i = 0; i < set->n; i++) {
		fprintf(f, "%s%u", i ? "," : "", set->range[i].first);
		if (set->range[i].last > set->range[i].first)
			fprintf(f, "-%u", set->range[i].last);
	}
	if (fclose(take_ptr(f)))
		return NULL;
	return take_ptr(text);
}
