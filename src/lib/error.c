/* SPDX-License-Identifier: Apache-2.0 */
/* The error object: a return code that carries its reason in words. */

#include "lib/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 2, 0))) static void set_text(struct error *err, const char *fmt,
							   va_list ap)
{
	/* The arguments may point into err->text itself. */
	struct error text;

	vsnprintf(text.text, sizeof(text.text), fmt, ap);
	memcpy(err->text, text.text, sizeof(text.text));
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		set_text(err, fmt, ap);
		va_end(ap);
	}
	errno = saved;
	return code;
}

int error_errno(struct error *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err) {
		char reason[128];
		size_t used;

		va_start(ap, fmt);
		set_text(err, fmt, ap);
		va_end(ap);
		used = strlen(err->text);
		snprintf(err->text + used, sizeof(err->text) - used, ": %s",
			 strerror_r(-code, reason, sizeof(reason)));
	}
	errno = saved;
	return code;
}

int error_prefix(struct error *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err) {
		struct error old = *err;
		size_t used;

		va_start(ap, fmt);
		set_text(err, fmt, ap);
		va_end(ap);
		used = strlen(err->text);
		snprintf(err->text + used, sizeof(err->text) - used, ": %s", old.text);
	}
	errno = saved;
	return code;
}
