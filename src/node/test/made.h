/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_TEST_MADE_H
#define WISP_NODE_TEST_MADE_H

/* A folder for a test, with made-up files. Include after cmocka.h. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/process.h"

static int made_set_up(void **state)
{
	char *root = strdup("/tmp/wisp-node-XXXXXX");

	*state = mkdtemp(root);
	return *state ? 0 : -1;
}

static int made_tear_down(void **state)
{
	char *root = *state;
	const char *const argv[] = {"rm", "-rf", root, NULL};
	int r = process_run(&(struct process){.argv = argv}, NULL, NULL, NULL);

	free(root);
	return r;
}

/* Makes a file with the folders above it. */
__attribute__((unused)) static void made_file(const char *root, const char *path, const char *text)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	char *slash = strrchr(full, '/');

	*slash = 0;
	assert_int_equal(io_make_dirs(full, 0755, NULL), 0);
	*slash = '/';
	assert_int_equal(io_write_file(full, text, strlen(text), NULL), 0);
}

__attribute__((unused)) static void made_link(const char *root, const char *path,
					      const char *target)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);

	assert_int_equal(symlink(target, full), 0);
}

#endif
