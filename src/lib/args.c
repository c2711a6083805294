/* SPDX-License-Identifier: Apache-2.0 */
/* Growing argument vectors. */

#include "lib/args.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/io.h"

static void append(struct args *args, char *text)
{
	char **v = text ? realloc(args->v, (args->n + 2) * sizeof(*v)) : NULL;

	if (!v) {
		args->failed = true;
		free(text);
		return;
	}
	args->v = v;
	v[args->n++] = text;
	v[args->n] = NULL;
}

void args_add(struct args *args, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	append(args, vasprintf(&text, fmt, ap) < 0 ? NULL : text);
	va_end(ap);
}

void args_extend(struct args *args, const char *fmt, ...)
{
	CLEANUP_FREE char *more = NULL;
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&more, fmt, ap) >= 0 && args->n)
		text = io_format("%s%s", args->v[args->n - 1], more);
	va_end(ap);
	if (!text) {
		args->failed = true;
		return;
	}
	free(args->v[args->n - 1]);
	args->v[args->n - 1] = text;
}

void args_done(struct args *args)
{
	for (size_t i = 0; i < args->n; i++)
		free(args->v[i]);
	free(args->v);
	*args = (struct args){0};
}
