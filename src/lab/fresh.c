/* SPDX-License-Identifier: Apache-2.0 */
/* Do files that a node remembers still look the same here? */

#include "lab/fresh.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/paths.h"

static char *mark_path(const char *dir, const char *node)
{
	return io_format("%s/%s.seen", dir, node);
}

int fresh_mark(const char *dir, const char *node, struct error *err)
{
	CLEANUP_FREE char *path = mark_path(dir, node);

	return path ? io_write_file(path, "", 0, err) : -ENOMEM;
}

static bool changed_since(const char *path, const struct timespec *mark)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return false;
	return st.st_ctim.tv_sec > mark->tv_sec ||
	       (st.st_ctim.tv_sec == mark->tv_sec && st.st_ctim.tv_nsec > mark->tv_nsec);
}

/* The first word is looked up in PATH, as the node will do it. */
static bool program_changed(const char *name, const struct timespec *mark)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];

	while (path && *path) {
		size_t len = strcspn(path, ":");

		snprintf(file, sizeof(file), "%.*s/%s", (int)len, path, name);
		if (!access(file, X_OK))
			return changed_since(file, mark);
		path += len + (path[len] == ':');
	}
	return false;
}

static bool argument_changed(const char *cwd, const char *word, const struct timespec *mark)
{
	char file[PATH_MAX];

	if (*word == '/' || !cwd)
		return changed_since(word, mark);
	snprintf(file, sizeof(file), "%s/%s", cwd, word);
	return changed_since(file, mark);
}

/* A program run by the named one may well be ours. */
static bool ours_changed(const struct timespec *mark)
{
	static const char *const names[] = {"wisp", "wisp-vmm"};
	CLEANUP_FREE char *images = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *path = NULL;

		if (!paths_program(names[i], &path, NULL) && changed_since(path, mark))
			return true;
	}
	return !paths_image(NULL, &images, NULL) && changed_since(images, mark);
}

bool fresh_stale(const char *dir, const char *node, const char *cwd, const char *const *argv)
{
	CLEANUP_FREE char *path = mark_path(dir, node);
	struct stat mark;

	if (!path || stat(path, &mark) < 0)
		return true;
	if (argv[0] && !strchr(argv[0], '/') && program_changed(argv[0], &mark.st_mtim))
		return true;
	for (; *argv; argv++)
		if (argument_changed(cwd, *argv, &mark.st_mtim))
			return true;
	return ours_changed(&mark.st_mtim);
}
