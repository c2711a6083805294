/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_ARGS_H
#define WISP_LIB_ARGS_H

/* An argument vector that grows. Running out of memory is remembered and seen once at the end. */

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise; free with args_done(). */
struct args {
	char **v; /* ends with NULL once something was added */
	size_t n;
	bool failed;
};

void args_add(struct args *args, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds to the last argument. */
void args_extend(struct args *args, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void args_done(struct args *args);

#endif
