/* SPDX-License-Identifier: Apache-2.0 */
/* Reading lists of nodes. */

#include "job/nodelist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"

#define ENTRY_MAX 320u
#define FILE_MAX (16u << 20)

const char *nodelist_name(const char *entry, char *buf, size_t size)
{
	snprintf(buf, size, "%.*s", (int)strcspn(entry, "@"), entry);
	return buf;
}

int nodelist_find(const json_t *list, const char *name)
{
	char its[ENTRY_MAX];
	const json_t *entry;
	size_t i;

	json_array_foreach (list, i, entry)
		if (!strcmp(nodelist_name(json_string_value(entry), its, sizeof(its)), name))
			return (int)i;
	return -1;
}

/* -------- one entry without brackets -------- */

static int check_host(const char *entry, const char *host, struct error *err)
{
	size_t n = strcspn(host, ":");
	unsigned port;

	if (!n || host[0] == '-' ||
	    strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") < n)
		return error_set(err, -EINVAL, "node \"%s\": give NAME@HOST or NAME@HOST:PORT",
				 entry);
	return host[n] ? parse_uint(host + n + 1, "the node's port", 1, 65535, &port, err) : 0;
}

static int add_entry(json_t *list, const char *entry, struct error *err)
{
	const char *at = strchr(entry, '@');
	char name[ENTRY_MAX];
	int r = paths_check_name(nodelist_name(entry, name, sizeof(name)), "node", err);

	if (!r && at)
		r = check_host(entry, at + 1, err);
	if (!r && nodelist_find(list, name) >= 0)
		r = error_set(err, -EINVAL, "node %s is named twice", name);
	if (!r && json_array_size(list) >= NODELIST_MAX)
		r = error_set(err, -E2BIG, "there are more than %u nodes", NODELIST_MAX);
	if (!r && json_array_append_new(list, json_string(entry)))
		r = error_set(err, -ENOMEM, "out of memory");
	return r;
}

/* -------- brackets -------- */

/* One number or range of a bracket: [*from, *to] and how many digits they have at least. */
static int read_range(const char **at, unsigned long *from, unsigned long *to, int *width)
{
	char *end;

	if (!strchr("0123456789", **at) || !**at)
		return -EINVAL;
	*from = *to = strtoul(*at, &end, 10);
	*width = (int)(end - *at);
	if (*end == '-') {
		*at = end + 1;
		if (!strchr("0123456789", **at) || !**at)
			return -EINVAL;
		*to = strtoul(*at, &end, 10);
	}
	*at = end;
	return *to < *from || *to - *from >= NODELIST_MAX || *width > 9 ? -EINVAL : 0;
}

/* The text with every "[...]" of it replaced by the number. */
static int put_number(const char *text, unsigned long number, int width, char *ret, size_t size)
{
	size_t used = 0;

	while (*text && used < size) {
		size_t n = strcspn(text, "[");
		const char *end = text[n] ? strchr(text + n, ']') : NULL;

		used += (size_t)snprintf(ret + used, size - used, "%.*s", (int)n, text);
		if (!end)
			break;
		if (used < size)
			used += (size_t)snprintf(ret + used, size - used, "%0*lu", width, number);
		text = end + 1;
	}
	return used < size ? 0 : -EINVAL;
}

/* Where a name and a host both have brackets, they count together. */
static int add_brackets(json_t *list, const char *text, struct error *err)
{
	const char *at = strchr(text, '[') + 1;
	int r = 0;

	while (!r) {
		unsigned long from, to;
		char entry[ENTRY_MAX];
		int width;

		if (read_range(&at, &from, &to, &width))
			break;
		for (unsigned long i = from; !r && i <= to; i++) {
			r = put_number(text, i, width, entry, sizeof(entry));
			if (!r)
				r = add_entry(list, entry, err);
		}
		if (r || *at == ']')
			return r;
		if (*at++ != ',')
			break;
	}
	return error_set(err, -EINVAL, "node list \"%s\": ranges are like n[1-4,07-09]", text);
}

static int add_item(json_t *list, const char *text, size_t n, struct error *err)
{
	char item[ENTRY_MAX];

	if (n >= sizeof(item))
		return error_set(err, -EINVAL, "\"%.40s...\" is too long for a node", text);
	memcpy(item, text, n);
	item[n] = 0;
	return strchr(item, '[') ? add_brackets(list, item, err) : add_entry(list, item, err);
}

/* Commas in brackets do not separate. */
static size_t item_length(const char *text)
{
	size_t n = 0;
	bool inside = false;

	for (; text[n] && (inside || text[n] != ','); n++)
		inside = text[n] == '[' || (inside && text[n] != ']');
	return n;
}

int nodelist_add(json_t *list, const char *text, struct error *err)
{
	int r = 0;

	do {
		size_t n = item_length(text);

		r = add_item(list, text, n, err);
		text += n;
	} while (!r && *text++ == ',');
	return r;
}

/* -------- files -------- */

int nodelist_add_file(json_t *list, const char *path, struct error *err)
{
	CLEANUP_FREE char *all = NULL;
	ssize_t size = io_read_file(path, FILE_MAX, &all, err);
	char *rest = all, *line;
	unsigned number = 0;

	if (size < 0)
		return (int)size;
	while ((line = strsep(&rest, "\n"))) {
		char *word;
		int r = 0;

		number++;
		line[strcspn(line, "#")] = 0;
		while (!r && (word = strsep(&line, " \t\r")))
			if (*word)
				r = nodelist_add(list, word, err);
		if (r)
			return error_prefix(err, r, "%s:%u", path, number);
	}
	return json_array_size(list) ? 0 : error_set(err, -EINVAL, "%s names no node", path);
}
