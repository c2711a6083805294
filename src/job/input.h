/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_INPUT_H
#define WISP_JOB_INPUT_H

/*
 * Input of a task by its position (docs/formats/agent.md, Tasks): what may go on, and what has to
 * be kept, since whoever comes back to the task may have to send it again. Pure; one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/proto.h"

/* Zero to begin with; free with input_done(). */
struct input {
	struct buffer kept;
	uint64_t base;	  /* position of its first byte */
	uint64_t sent;	  /* up to here it has gone */
	uint64_t granted; /* up to here it may */
	bool ends, ended; /* there is no more; and that was said */
};

void input_done(struct input *in);

/* 0 or -ENOMEM. */
int input_add(struct input *in, const void *data, size_t n);

/* What may go now: how much, 0: nothing. It is to be told by input_went(). */
size_t input_next(const struct input *in, const uint8_t **ret);
void input_went(struct input *in, size_t n);
/* All has gone, and its end is to be said. */
bool input_is_over(const struct input *in);

/* The agent takes n bytes more. */
void input_grant(struct input *in, uint64_t n);

/*
 * The agent has it up to there, and grants nothing yet. Bytes that it wants again and that are not
 * kept are lost: how many.
 */
uint64_t input_go_on(struct input *in, uint64_t position);

#endif
