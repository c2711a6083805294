/* SPDX-License-Identifier: Apache-2.0 */
/* Facts from files, below a root. */

#include "lib/tree.h"

#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

bool tree_access(const char *root, const char *path, int mode)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);

	return full && !access(full, mode);
}

bool tree_line(const char *root, const char *path, char *buf, size_t size)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	CLEANUP_FREE char *text = NULL;

	if (!full || io_read_file(full, 1 << 16, &text, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = 0;
	snprintf(buf, size, "%s", text);
	return true;
}

uint64_t tree_number(const char *root, const char *path)
{
	char line[64];

	return tree_line(root, path, line, sizeof(line)) ? strtoull(line, NULL, 10) : 0;
}

void tree_each(const char *root, const char *pattern, void (*fn)(const char *path, void *arg),
	       void *arg)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, pattern);
	glob_t found = {0};

	if (full && !glob(full, 0, NULL, &found))
		for (size_t i = 0; i < found.gl_pathc; i++)
			fn(found.gl_pathv[i] + strlen(root), arg);
	globfree(&found);
}

static void count_one(const char *path, void *arg)
{
	(*(unsigned *)arg)++;
}

unsigned tree_count(const char *root, const char *pattern)
{
	unsigned n = 0;

	tree_each(root, pattern, count_one, &n);
	return n;
}

bool tree_link(const char *root, const char *path, char *buf, size_t size)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	char target[PATH_MAX];
	ssize_t n = full ? readlink(full, target, sizeof(target) - 1) : -1;

	if (n <= 0)
		return false;
	target[n] = 0;
	snprintf(buf, size, "%s", strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
	return true;
}

bool tree_program(const char *root, const char *name)
{
	static const char *const folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
					      "/usr/bin",	 "/sbin",	   "/bin"};

	for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%s", folders[i], name);
		if (tree_access(root, path, X_OK))
			return true;
	}
	return false;
}
