/* SPDX-License-Identifier: Apache-2.0 */
/* Our lines of /etc/hosts: written by request, read to find a machine. */

#include "agent/hosts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define HOSTS_MARK "\t# wisp"
#define HOSTS_MAX (4u << 20) /* some 100,000 machines */

static bool is_ours(const char *line)
{
	size_t n = strlen(line), mark = strlen(HOSTS_MARK);

	return n >= mark && !strcmp(line + n - mark, HOSTS_MARK);
}

/* Copies the lines of text that are not ours. */
static void keep_foreign_lines(FILE *out, char *text)
{
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n")))
		if (*line && !is_ours(line))
			fprintf(out, "%s\n", line);
}

static int add_hosts(FILE *out, const json_t *hosts, struct error *err)
{
	size_t i;
	json_t *host;

	json_array_foreach ((json_t *)hosts, i, host) {
		const char *name = json_string_value(json_object_get(host, "name"));
		const char *address = json_string_value(json_object_get(host, "address"));
		struct in6_addr bin;

		if (!name || !*name || strpbrk(name, " \t\n#") || !address ||
		    (inet_pton(AF_INET, address, &bin) != 1 &&
		     inet_pton(AF_INET6, address, &bin) != 1))
			return error_set(
				err, -EINVAL,
				"host %zu is not {\"name\", \"address\"} with an IP address", i);
		fprintf(out, "%s\t%s" HOSTS_MARK "\n", address, name);
	}
	return 0;
}

int hosts_set(const char *path, const json_t *hosts, struct error *err)
{
	CLEANUP_FREE char *old = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	ssize_t n = io_read_file(path, HOSTS_MAX, &old, err);
	int r = 0;

	if (!out)
		return error_errno(err, -errno, "cannot write %s", path);
	if (n == -ENOENT)
		fprintf(out, "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
	else if (n < 0)
		r = (int)n;
	else
		keep_foreign_lines(out, old);
	if (!r)
		r = json_is_array(hosts) ? add_hosts(out, hosts, err)
					 : error_set(err, -EINVAL, "\"hosts\" is not an array");
	if (fclose(out) && !r)
		r = error_errno(err, -errno, "cannot write %s", path);
	return r ? r : io_write_file(path, text, size, err);
}

/* The first of our lines with this name (may be NULL) or this address (may be NULL). */
static int find_line(const char *path, const char *name, const struct in_addr *address,
		     struct in_addr *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file(path, HOSTS_MAX, &text, err);
	char *rest = text, *line;

	if (n < 0)
		return (int)n;
	while ((line = strsep(&rest, "\n"))) {
		char *field = line, *first = is_ours(line) ? strsep(&field, "\t") : NULL;
		const char *second = first ? strsep(&field, "\t") : NULL;
		struct in_addr found;

		if (!second || inet_pton(AF_INET, first, &found) != 1)
			continue;
		if ((name && !strcmp(second, name)) ||
		    (address && found.s_addr == address->s_addr)) {
			*ret = found;
			return 0;
		}
	}
	return -ENOENT;
}

int hosts_find(const char *path, const char *name, struct in_addr *ret, struct error *err)
{
	struct in_addr address;
	bool is_address = inet_pton(AF_INET, name, &address) == 1;
	int r = find_line(path, is_address ? NULL : name, is_address ? &address : NULL, ret, err);

	return r == -ENOENT ? error_set(err, r, "no VM %s is in this network (see %s)", name, path)
			    : r;
}

int hosts_has(const char *path, struct in_addr address, struct error *err)
{
	struct in_addr found;
	char text[INET_ADDRSTRLEN];
	int r = find_line(path, NULL, &address, &found, err);

	return r == -ENOENT ? error_set(err, r, "%s is no VM of this network",
					inet_ntop(AF_INET, &address, text, sizeof(text)))
			    : r;
}
