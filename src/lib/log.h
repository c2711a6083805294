/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_LOG_H
#define WISP_LIB_LOG_H

/*
 * The logger: one line a message, "TIME NAME[SUBSYSTEM] LEVEL: text", one write() a
 * line so that lines of several threads never mix. NAME is the VM (or lab, daemon).
 * There is no global logger: a context holds one and passes it on.
 */

#include <stdbool.h>

struct error;

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
};

struct log {
	int fd;		   /* where lines go; not owned */
	_Atomic int level; /* highest enum log_level that is written; changeable at any time */
	char name[64];
};

/* Fills log; name is copied (cut to 63 bytes), fd stays the caller's. */
void log_init(struct log *log, const char *name, int fd, enum log_level level);

/* "error", "warn", "info", "debug". Returns the level or -EINVAL with the names in err. */
int log_level_parse(const char *text, struct error *err);
const char *log_level_name(enum log_level level);

static inline bool log_enabled(const struct log *log, enum log_level level)
{
	return log && (int)level <= log->level;
}

/*
 * For messages that a guest or a peer can cause as often as it likes: true the 1st, 2nd, 4th,
 * 8th... time. *count starts at 0.
 */
static inline bool log_due(unsigned *count)
{
	unsigned before = (*count)++;

	return !(before & (before + 1));
}

/* Writes one line if the level is on. Keeps errno. Any thread. log may be NULL (nothing). */
void log_write(const struct log *log, enum log_level level, const char *subsystem, const char *fmt,
	       ...) __attribute__((format(printf, 4, 5)));

#define log_error(log, sub, ...) log_write(log, LOG_ERROR, sub, __VA_ARGS__)
#define log_warn(log, sub, ...) log_write(log, LOG_WARN, sub, __VA_ARGS__)
#define log_info(log, sub, ...) log_write(log, LOG_INFO, sub, __VA_ARGS__)
/* The arguments are not evaluated while debug is off. */
#define log_debug(log, sub, ...)                                      \
	do {                                                          \
		if (__builtin_expect(log_enabled(log, LOG_DEBUG), 0)) \
			log_write(log, LOG_DEBUG, sub, __VA_ARGS__);  \
	} while (0)

#endif
