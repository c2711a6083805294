/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_TALK_H
#define WISP_JOB_TALK_H

/*
 * One session with the agent of a VM of the cluster (docs/formats/agent.md), without waiting. For
 * the thread of the loop.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct talk;
struct tubes;

struct talk_ops {
	/* A frame of the agent, but for HELLO, RESULT and ERROR; type: enum frame_type of proto.h.
	 */
	void (*frame)(void *arg, unsigned type, const uint8_t *data, size_t n);
	/* The result of the request; it stays the talk's. May be NULL. */
	void (*result)(void *arg, const json_t *result);
	/* What was said has gone: there is room for more. May be NULL. */
	void (*room)(void *arg);
	/*
	 * It is over: code 0, or -errno of the agent or of the way there, with the reason. The talk
	 * has gone then. Not out of a call.
	 */
	void (*over)(void *arg, int code, const char *reason);
};

/* Takes the request. NULL: out of memory. */
struct talk *talk_start(struct tubes *tubes, const char *node, const char *vm, json_t *request,
			const struct talk_ops *ops, void *arg);

/* A frame to the agent. It is kept until it can go: look at talk_waiting(). 0 or -ENOMEM. */
int talk_say(struct talk *talk, unsigned type, const void *data, size_t n);
/* Frames as they are encoded, which stay the caller's. */
struct buffer;
int talk_say_frame(struct talk *talk, const struct buffer *frames);
size_t talk_waiting(const struct talk *talk);

/* In over(): whether the agent has said that error; else it is of the way there. */
bool talk_was_refused(const struct talk *talk);

/* Whether the agent is to wait with more. */
void talk_hold(struct talk *talk, bool hold);

/* Nothing is told any more. Accepts NULL. */
void talk_end(struct talk *talk);

#endif
