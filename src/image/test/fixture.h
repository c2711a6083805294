/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_TEST_FIXTURE_H
#define WISP_IMAGE_TEST_FIXTURE_H

/* A folder of a test's own, which is also the user's for images and the cache. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

struct fixture {
	char dir[64];
	struct error err;
};

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	*state = f;
	if (!mkdtemp(f->dir))
		return -1;
	setenv("WISP_HOME", f->dir, 1);
	setenv("WISP_CACHE", f->dir, 1);
	unsetenv("WISP_STORE");
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	int rc = tree_remove(f->dir, &f->err);

	free(f);
	return rc;
}

static inline char *below(const struct fixture *f, const char *name)
{
	return io_format("%s/%s", f->dir, name);
}

static inline void write_file(struct fixture *f, const char *name, const void *data, size_t size)
{
	CLEANUP_FREE char *path = below(f, name), *folder = strdup(path);

	*strrchr(folder, '/') = '\0';
	assert_int_equal(io_make_dirs(folder, 0755, &f->err), 0);
	assert_int_equal(io_write_file(path, data, size, &f->err), 0);
}

static inline void write_text(struct fixture *f, const char *name, const char *text)
{
	write_file(f, name, text, strlen(text));
}

#define assert_said(f, said) assert_non_null(strstr((f)->err.text, said))
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
