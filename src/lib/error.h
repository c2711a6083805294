/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_ERROR_H
#define WISP_LIB_ERROR_H

/*
 * The one error convention: a function that can fail returns 0 (or a useful
 * non-negative value) or -errno, and takes a struct error as its last argument
 * when a person will read the reason. The place that knows the path or the value
 * writes the text; callers add context with error_prefix() or pass it on. Only main
 * functions and request handlers print it.
 */

#include <stdarg.h>

struct error {
	char text[512]; /* one line, no newline at the end; longer texts are cut */
};

/*
 * Writes the text and returns code, so that a failing function is one line:
 *     return error_set(err, -EINVAL, "memory size %s is not a multiple of 2 MiB", arg);
 * code is a negative errno. err may be NULL. Keeps errno. Any thread.
 */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * As error_set(), with ": " and the text of -code behind it, for failed system calls:
 *     return error_errno(err, -errno, "cannot open disk %s", path);
 */
int error_errno(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text that is there and returns code. err may be NULL. */
int error_prefix(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
