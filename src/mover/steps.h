/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_STEPS_H
#define WISP_MOVER_STEPS_H

/*
 * Who says when a checkpoint goes on (docs/formats/checkpoint-steps.md). A NULL stands for nobody:
 * what is told is lost, and each word has been said when it is waited for.
 */

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/jsonline.h"

#define STEPS_RESUME_MS 5000   /* from "cut" to the word "resume", at most */
#define STEPS_PROGRESS_MS 5000 /* between two lines that say only that something gets done */

enum steps_word {
	STEPS_CUT,
	STEPS_RESUME,
	STEPS_COMMIT,
	STEPS_WORDS,
};

struct steps {
	int in, out;
	bool stays;	      /* there is no "resume" */
	_Atomic bool *cancel; /* set when it is given up; somebody else may set it, too */
	pthread_t thread;     /* reads what is told */
	bool started;
	struct jsonline line;
	_Atomic uint64_t pulse;	   /* of the operation's struct progress */
	unsigned progress_ms;	   /* STEPS_PROGRESS_MS; a test may change it before the start */
	pthread_mutex_t out_mutex; /* a line is written as one */
	pthread_mutex_t mutex;	   /* for what follows */
	pthread_cond_t heard_more;
	bool may[STEPS_WORDS], heard[STEPS_WORDS];
	bool ended;	   /* nobody listens any more */
	uint64_t deadline; /* for "resume", io_now_ns(); 0: none */
	int rc;		   /* why it was given up */
	struct error why;
};

/*
 * Lines come from in and go to out, which stay the caller's. stays: for a suspend. s must live
 * until steps_end(), which is to be called in any case.
 */
void steps_init(struct steps *s, int in, int out, bool stays, _Atomic bool *cancel);

/* From now on words are heard, and that s->pulse goes up is said. */
int steps_start(struct steps *s, struct error *err);

/*
 * The last line: "committed" with the report when rc is 0, else "failed" with *err, which becomes
 * the reason why it was given up if that is why. Returns rc, or that reason's code.
 */
int steps_end(struct steps *s, int rc, const json_t *report, struct error *err);

/* Says a line; members (NULL: none) is taken over. */
int steps_say(struct steps *s, const char *step, json_t *members, struct error *err);

/* The same; the word may be said from now on, the one to resume at most STEPS_RESUME_MS from now.
 */
int steps_ask(struct steps *s, const char *step, json_t *members, enum steps_word word,
	      struct error *err);

/*
 * Waits for a word. 1 when it was said; 0: not within wait_ms (-1: for ever); -errno when it was
 * given up. A word that nobody will say has been said.
 */
int steps_await(struct steps *s, enum steps_word word, int wait_ms, struct error *err);

#endif
