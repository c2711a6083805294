/* SPDX-License-Identifier: Apache-2.0 */
/* The logger: formats one line and writes it whole. */

#include "lib/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};

void log_init(struct log *log, const char *name, int fd, enum log_level level)
{
	log->fd = fd;
	log->level = level;
	snprintf(log->name, sizeof(log->name), "%s", name);
}

int log_level_parse(const char *text, struct error *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(level_names); i++)
		if (!strcmp(text, level_names[i]))
			return (int)i;
	return error_set(err, -EINVAL, "log level \"%s\" is not one of error, warn, info, debug",
			 text);
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

void log_write(const struct log *log, enum log_level level, const char *subsystem, const char *fmt,
	       ...)
{
	int saved = errno;
	char line[1024];
	struct timespec now;
	struct tm tm;
	size_t used;
	va_list ap;
	int n;

	if (!log_enabled(log, level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	used += (size_t)snprintf(line + used, sizeof(line) - used,
				 ".%03ldZ %s[%s] %s: ", now.tv_nsec / 1000000, log->name, subsystem,
				 level_names[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + used, sizeof(line) - used, fmt, ap);
	va_end(ap);
	if (n > 0)
		used += (size_t)n;
	if (used > sizeof(line) - 1)
		used = sizeof(line) - 1;
	/* What guests and peers make us say stays in its line. */
	for (size_t i = 0; i < used; i++)
		if (iscntrl((unsigned char)line[i]))
			line[i] = ' ';
	line[used++] = '\n';
	/* A log that cannot be written (full disk, closed pipe) must not stop the VM. */
	(void)!write(log->fd, line, used);
	errno = saved;
}
