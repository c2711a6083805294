/* SPDX-License-Identifier: Apache-2.0 */
/* Collects the APT sources of this machine. */

#include "image/sources.h"

#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MAX_SOURCES (1u << 20)

int sources_release(char **ret, struct error *err)
{
	static const char key[] = "\nVERSION_CODENAME=";
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file("/etc/os-release", MAX_SOURCES, &text, err);
	const char *at;

	if (n < 0)
		return (int)n;
	at = strstr(text, key);
	if (!at)
		return error_set(err, -ENOENT,
				 "/etc/os-release names no Debian release: give one, as "
				 "\"base: debian:CODENAME\"");
	at += strlen(key);
	at += *at == '"';
	*ret = strndup(at, strcspn(at, "\"\n"));
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c);
}

/* Appends text with the word from replaced by to ("bookworm-updates" has it too). */
static void append(FILE *out, const char *text, const char *from, const char *to)
{
	size_t len = strlen(from);
	const char *start = text, *p = text;

	while ((p = strstr(p, from))) {
		if ((p > text && is_word(p[-1])) || is_word(p[len])) {
			p += len;
			continue;
		}
		fprintf(out, "%.*s%s", (int)(p - start), start, to);
		p += len;
		start = p;
	}
	fputs(start, out);
	/* An empty line, so that deb822 stanzas of two files stay two. */
	fputs("\n\n", out);
}

static int append_matching(FILE *out, const char *root, const char *pattern, const char *from,
			   const char *to, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/etc/apt/%s", root, pattern);
	glob_t g;
	int rc = 0;

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	if (glob(path, 0, NULL, &g))
		return 0;
	for (size_t i = 0; rc == 0 && i < g.gl_pathc; i++) {
		CLEANUP_FREE char *text = NULL;
		ssize_t n = io_read_file(g.gl_pathv[i], MAX_SOURCES, &text, err);

		if (n < 0)
			rc = (int)n;
		else
			append(out, text, from, to);
	}
	globfree(&g);
	return rc;
}

/* One file from all that match the patterns; *ret stays NULL when there is nothing in them. */
static int collect(const char *root, const char *const *patterns, const char *target,
		   const char *from, const char *to, char **ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int rc = out ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (; rc == 0 && *patterns; patterns++)
		rc = append_matching(out, root, *patterns, from, to, err);
	if (out && fclose(out) && rc == 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc < 0 || strspn(text, " \n") == size)
		return rc;
	rc = io_write_file(target, text, size, err);
	if (rc == 0)
		*ret = strdup(target);
	return rc == 0 && !*ret ? error_set(err, -ENOMEM, "out of memory") : rc;
}

int sources_write(const char *root, const char *folder, const char *from, const char *to,
		  char **ret_list, char **ret_sources, struct error *err)
{
	static const char *const lists[] = {"sources.list", "sources.list.d/*.list", NULL};
	static const char *const sources[] = {"sources.list.d/*.sources", NULL};
	CLEANUP_FREE char *list_path = io_format("%s/apt.list", folder);
	CLEANUP_FREE char *sources_path = io_format("%s/apt.sources", folder);
	CLEANUP_FREE char *list = NULL, *deb822 = NULL;
	int rc;

	if (!list_path || !sources_path)
		return error_set(err, -ENOMEM, "out of memory");
	rc = collect(root, lists, list_path, from, to, &list, err);
	if (rc == 0)
		rc = collect(root, sources, sources_path, from, to, &deb822, err);
	if (rc < 0)
		return rc;
	if (!list && !deb822)
		return error_set(err, -ENOENT, "no APT sources in %s/etc/apt", root);
	*ret_list = take_ptr(list);
	*ret_sources = take_ptr(deb822);
	return 0;
}
