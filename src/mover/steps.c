/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a checkpoint, told and heard as lines of JSON. */

#include "mover/steps.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define STEP_MAX 4096
#define TICK_MS 100 /* in which a signal, and the end of a time, are seen */
#define MS 1000000ull

static const char *const words[STEPS_WORDS] = {
	[STEPS_CUT] = "cut",
	[STEPS_RESUME] = "resume",
	[STEPS_COMMIT] = "commit",
};

/* The thread that reads. With the mutex held. */
static void give_up(struct steps *s, int rc, const struct error *why)
{
	s->rc = rc;
	s->why = *why;
	s->ended = true;
	*s->cancel = true;
}

static int hear_word(struct steps *s, const char *word, struct error *err)
{
	unsigned i = 0;

	if (!word)
		return error_set(err, -EBADMSG, "a line that has no \"step\" was told");
	if (!strcmp(word, "abort"))
		return error_set(err, -ECANCELED, "told to abort");
	while (i < STEPS_WORDS && strcmp(word, words[i]))
		i++;
	if (i == STEPS_WORDS || !s->may[i] || s->heard[i])
		return error_set(err, -EPROTO, "\"%.32s\" is not what can be told now", word);
	s->heard[i] = true;
	if (i == STEPS_RESUME)
		s->deadline = 0;
	/* It cannot be given up any more. */
	s->ended = i == STEPS_COMMIT;
	return 0;
}

static int hear_lines(struct steps *s, struct error *err)
{
	int rc = jsonline_read(&s->line, s->in, STEP_MAX);

	if (rc == -EPIPE)
		return error_set(err, -ECANCELED, "who gives the steps has gone");
	if (rc < 0)
		return error_errno(err, rc, "cannot read the steps");
	while (rc > 0 && !s->ended) {
		json_t *line = NULL;

		rc = jsonline_take(&s->line, &line, err);
		if (rc == -EAGAIN)
			return 0;
		if (rc == 0)
			rc = hear_word(s, json_string_value(json_object_get(line, "step")), err);
		json_decref(line);
		if (rc < 0)
			return rc;
		rc = 1;
	}
	return 0;
}

/* What came, or what did not come in time. */
static void look(struct steps *s, bool input)
{
	struct error why;
	int rc = 0;

	SCOPED_LOCK(&s->mutex);
	if (s->ended)
		return;
	if (*s->cancel)
		rc = error_set(&why, -ECANCELED, "cancelled");
	else if (input)
		rc = hear_lines(s, &why);
	if (rc == 0 && s->deadline && io_now_ns() >= s->deadline)
		rc = error_set(&why, -ETIMEDOUT, "was not told to resume within %d s of the cut",
			       STEPS_RESUME_MS / 1000);
	if (rc < 0)
		give_up(s, rc, &why);
	pthread_cond_broadcast(&s->heard_more);
}

static bool goes_on(struct steps *s)
{
	SCOPED_LOCK(&s->mutex);
	return !s->ended;
}

/* Who waits for a step, however long it takes, knows a disk that is slow from one that hangs. */
static void say_progress(struct steps *s, uint64_t *pulse, uint64_t *said)
{
	uint64_t now = io_now_ns();

	if (s->pulse == *pulse || now - *said < s->progress_ms * MS)
		return;
	*pulse = s->pulse;
	*said = now;
	steps_say(s, "progress", NULL, NULL);
}

static void *listen_to(void *arg)
{
	struct steps *s = arg;
	uint64_t pulse = 0, said = io_now_ns();

	while (goes_on(s)) {
		struct pollfd in = {.fd = s->in, .events = POLLIN};

		look(s, poll(&in, 1, TICK_MS) > 0);
		say_progress(s, &pulse, &said);
	}
	return NULL;
}

void steps_init(struct steps *s, int in, int out, bool stays, _Atomic bool *cancel)
{
	pthread_condattr_t monotonic;

	*s = (struct steps){.in = in,
			    .out = out,
			    .stays = stays,
			    .cancel = cancel,
			    .progress_ms = STEPS_PROGRESS_MS};
	pthread_mutex_init(&s->out_mutex, NULL);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->heard_more, &monotonic);
	pthread_condattr_destroy(&monotonic);
	s->may[STEPS_CUT] = true;
}

int steps_start(struct steps *s, struct error *err)
{
	int rc = pthread_create(&s->thread, NULL, listen_to, s);

	s->started = rc == 0;
	return rc ? error_errno(err, -rc, "cannot start a thread") : 0;
}

static void stop_listening(struct steps *s)
{
	if (!s->started)
		return;
	pthread_mutex_lock(&s->mutex);
	s->ended = true;
	pthread_mutex_unlock(&s->mutex);
	pthread_join(s->thread, NULL);
}

int steps_end(struct steps *s, int rc, const json_t *report, struct error *err)
{
	stop_listening(s);
	if (rc == 0) {
		/* Whether anybody hears it changes nothing: it is done. */
		steps_say(s, "committed",
			  json_pack("{s:O, s:O, s:O}", "epoch", json_object_get(report, "epoch"),
				    "digest", json_object_get(report, "digest"), "report", report),
			  NULL);
	} else {
		if (rc == -ECANCELED && s->rc < 0) {
			rc = s->rc;
			*err = s->why;
		}
		steps_say(s, "failed", json_pack("{s:i, s:s}", "errno", -rc, "error", err->text),
			  NULL);
	}
	jsonline_done(&s->line);
	pthread_cond_destroy(&s->heard_more);
	pthread_mutex_destroy(&s->mutex);
	pthread_mutex_destroy(&s->out_mutex);
	return rc;
}

int steps_say(struct steps *s, const char *step, json_t *members, struct error *err)
{
	json_t *line = members ? members : json_object();
	int rc = 0;

	if (s) {
		SCOPED_LOCK(&s->out_mutex);
		json_object_set_new(line, "step", json_string(step));
		rc = jsonline_write(s->out, line);
	}
	json_decref(line);
	return rc < 0 ? error_errno(err, rc, "cannot say \"%s\" on standard output", step) : 0;
}

/* Before it is asked for: the answer may be there at once. */
static void allow(struct steps *s, enum steps_word word)
{
	SCOPED_LOCK(&s->mutex);
	s->may[word] = true;
	if (word == STEPS_RESUME)
		s->deadline = io_now_ns() + STEPS_RESUME_MS * MS;
}

/* Whether nobody will say this word. */
static bool goes_without(const struct steps *s, enum steps_word word)
{
	return !s || (s->stays && word == STEPS_RESUME);
}

int steps_ask(struct steps *s, const char *step, json_t *members, enum steps_word word,
	      struct error *err)
{
	if (!goes_without(s, word))
		allow(s, word);
	return steps_say(s, step, members, err);
}

static struct timespec time_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

int steps_await(struct steps *s, enum steps_word word, int wait_ms, struct error *err)
{
	struct timespec end;
	int timed_out = 0;

	if (goes_without(s, word))
		return 1;
	end = time_of(io_now_ns() + (wait_ms > 0 ? (uint64_t)wait_ms * MS : 0));
	SCOPED_LOCK(&s->mutex);
	while (!s->heard[word] && !s->rc && !timed_out) {
		if (wait_ms < 0)
			pthread_cond_wait(&s->heard_more, &s->mutex);
		else
			timed_out = pthread_cond_timedwait(&s->heard_more, &s->mutex, &end);
	}
	if (s->rc < 0 && err)
		*err = s->why;
	return s->rc < 0 ? s->rc : s->heard[word];
}
