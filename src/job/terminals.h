/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_TERMINALS_H
#define WISP_JOB_TERMINALS_H

/*
 * Who looks at a cluster: the connections of its control socket (docs/formats/job.md), each of
 * which may be attached, and then gets the program's output at its own pace. For the thread of the
 * loop.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct output;
struct terminal;
struct terminals;

struct terminals_ops {
	/*
	 * A request that is not about attaching. Answered by terminal_answer(), once, also later,
	 * also when it has gone. The message stays the terminals'.
	 */
	void (*request)(void *arg, struct terminal *terminal, json_int_t id, const char *op,
			const json_t *message);
	/* Input of the program; n 0: its end. It is granted again by terminals_used(). */
	void (*input)(void *arg, struct terminal *terminal, const uint8_t *data, size_t n);
	/* Whoever attaches: what there is to say to it at once (terminal_tell()). */
	void (*attached)(void *arg, struct terminal *terminal);
	/* A terminal that held the cluster has gone without a word. */
	void (*lost)(void *arg);
	/* Somebody has read: output that was held back may fit now. */
	void (*drained)(void *arg);
};

struct terminals_params {
	struct loop *loop;
	const char *path;		/* of the socket */
	const char *name;		/* of the cluster */
	const struct output *output[2]; /* stdout, stderr */
	const struct terminals_ops *ops;
	void *arg;
};

int terminals_create(const struct terminals_params *params, struct terminals **ret,
		     struct error *err);
/* Accepts NULL. */
void terminals_destroy(struct terminals *t);

/* Output has come, or was set back. */
void terminals_feed(struct terminals *t);
/* Bytes that the slowest of those who are attached has not been sent. */
uint64_t terminals_behind(const struct terminals *t);

/* To all that are attached. Takes the event. */
void terminals_tell(struct terminals *t, json_t *event);
void terminal_tell(struct terminal *t, const json_t *event);

/* value (not taken) may be NULL; code 0 or -errno with its text. */
void terminal_answer(struct terminal *t, json_int_t id, int code, const char *text,
		     const json_t *value);

/* Input that was passed on; from may have gone since it came. */
void terminals_used(struct terminals *t, const struct terminal *from, size_t n);

/* Nobody holds the cluster any more. */
void terminals_let_go(struct terminals *t);
bool terminals_hold(const struct terminals *t);

/* Nobody is taken any more, and the socket's path is free. */
void terminals_close(struct terminals *t);

/* The last event, behind all output; then they are left. Takes it. */
void terminals_finish(struct terminals *t, json_t *event);
/* Everybody has gone. */
bool terminals_are_done(const struct terminals *t);

#endif
