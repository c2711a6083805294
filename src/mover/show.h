/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_SHOW_H
#define WISP_MOVER_SHOW_H

/* Shows on standard error how an operation gets on. One thread at a time. */

#include <stdbool.h>
#include <stdint.h>

struct error;

enum show_how {
	SHOW_AUTO, /* SHOW_LINE on a terminal, else SHOW_NONE */
	SHOW_LINE, /* one line that is written again and again */
	SHOW_TEXT, /* a line now and then, for logs */
	SHOW_JSON, /* an object a line, for programs */
	SHOW_NONE,
};

struct show_now {
	const char *phase;    /* "copy" */
	uint64_t done, total; /* bytes; total 0: unknown */
	uint64_t rate;	      /* bytes a second */
	/* Of a VM that runs meanwhile; round 0: there is none. */
	uint64_t round, dirty_rate, downtime_ms;
	unsigned throttle;
};

struct show {
	enum show_how how;
	const char *operation; /* not owned */
	uint64_t start_ns, last_ns;
	const char *phase;
	bool open; /* the line has no end yet */
};

/* The option of a command that shows, for its table. */
#define SHOW_OPTION(id)                                                                            \
	{                                                                                          \
		id, "progress", 0, "HOW",                                                          \
			"On standard error: line, text, json, none, or auto (default): a line on " \
			"a terminal, else none",                                                   \
			0                                                                          \
	}

/* "auto", "line", "text", "json", "none". */
int show_parse(const char *text, enum show_how *ret, struct error *err);

void show_begin(struct show *s, const char *operation, enum show_how how);
/* May be called as often as one likes. */
void show_now(struct show *s, const struct show_now *now);
/* Before anything else is printed. */
void show_end(struct show *s);

#endif
