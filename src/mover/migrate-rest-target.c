/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy in the course of a migration, at the target: the VM is loaded and runs while its pages
 * come, and waits when they do not, until the source returns or it is too late.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-set.h"
#include "mover/migrate-target.h"

#define PATIENCE_MS 600000
#define WHOLE_US 1000

static unsigned patience(const struct target *t)
{
	return t->o.patience_ms ? t->o.patience_ms : PATIENCE_MS;
}

static struct catcher_options options_of(const struct target *t)
{
	return (struct catcher_options){.vmm = t->o.vmm,
					.memory = t->receiver.memory,
					.page_size = t->receiver.page_size,
					.patience_ms = patience(t),
					.timeout_ms = t->o.timeout_ms};
}

/* -------- before anything moves -------- */

static void add_obstacle(json_t *list, const char *mode, const char *here, const char *fix)
{
	json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "what", "mode", "source", mode,
					      "target", here, "fix", fix));
}

void target_rest_mode(struct target *t, const json_t *config, json_t *obstacles)
{
	const char *mode = json_string_value(json_object_get(config, "mode"));
	struct faults faults = {.fd = -1};
	struct error err = {{0}};
	int rc;

	t->may_follow = mode && (!strcmp(mode, "hybrid") || !strcmp(mode, "postcopy"));
	if (mode && !t->may_follow && strcmp(mode, "precopy") != 0)
		add_obstacle(obstacles, "not known here", "an older Wisp", "use --precopy");
	if (!t->may_follow)
		return;
	if (t->receiver.page_size != PAGE_BYTES && !json_is_true(json_object_get(config, "units")))
		add_obstacle(obstacles, mode, "huge pages, which an older Wisp sends in parts",
			     "start it there without --page-size, or use --precopy");
	rc = t->o.vmm->ops->faults_open(t->o.vmm, 0, &faults, &err);
	if (rc == 0)
		rc = t->o.vmm->ops->faults_stop(t->o.vmm, &err);
	faults_close(&faults);
	if (rc < 0)
		add_obstacle(obstacles, mode, err.text, "use --precopy, or do what is said there");
}

int target_rest_unit(struct target *t, const json_t *config, struct error *err)
{
	/* Others are obstacles, which the source is told instead. */
	if (!t->may_follow || t->receiver.page_size != FAULTS_UNIT_MAX ||
	    !json_is_true(json_object_get(config, "units")))
		return 0;
	return message_send_u64(&t->control, MESSAGE_UNIT, t->receiver.page_size, err);
}

/* -------- connections -------- */

int target_rest_accept(struct target *t, struct error *err)
{
	unsigned have = 0;
	int rc = 0;

	for (unsigned i = 0; i < MIGRATE_STREAMS; i++)
		t->rest[i].fd = -1;
	t->rest_streams = MIGRATE_STREAMS;
	while (rc == 0 && have < t->rest_streams) {
		struct channel ch = {.fd = -1};
		struct hello hello;

		rc = target_accept(t, HELLO_REST, t->o.timeout_ms, &ch, &hello, err);
		if (rc < 0)
			break;
		if (!have)
			t->rest_streams = hello.streams;
		if (hello.streams != t->rest_streams || hello.streams < 2 ||
		    t->rest[hello.stream].fd >= 0) {
			channel_close(&ch);
			rc = error_set(err, -EBADMSG, "a connection that cannot be");
			break;
		}
		t->rest[hello.stream] = ch;
		have++;
	}
	if (rc < 0)
		target_rest_close(t);
	return rc;
}

void target_rest_close(struct target *t)
{
	for (unsigned i = 0; i < t->rest_streams; i++)
		channel_close(&t->rest[i]);
	t->rest_streams = 0;
}

/* -------- up to the hand-over -------- */

int target_rest_sets(struct target *t, const struct message *m, struct error *err)
{
	uint64_t chunks = index_chunks(t->receiver.memory);

	if (!t->may_follow)
		return error_set(err, -EBADMSG, "pages are missing in a migration without such");
	if (!t->missing) {
		t->missing = calloc(chunks, sizeof(*t->missing));
		t->zero = calloc(chunks, sizeof(*t->zero));
	}
	if (!t->missing || !t->zero)
		return error_set(err, -ENOMEM, "out of memory");
	return missing_take(m, t->receiver.memory, &t->sets, t->missing, t->zero, err);
}

bool target_rest_known(const struct target *t)
{
	return t->missing && t->sets == index_chunks(t->receiver.memory);
}

int target_rest_begin(struct target *t, struct error *err)
{
	struct catcher_options o = options_of(t);
	int rc;

	receiver_keep_holes(&t->receiver);
	rc = catcher_create(&o, t->missing, t->zero, &t->catcher, err);
	t->note.rest = true;
	/* The VMM is about to load: if pages do not come it can only end. */
	if (rc == 0)
		rc = catcher_start(t->catcher, t->rest, t->rest_streams, true, err);
	t->rest_streams = 0;
	return rc < 0 ? rc : target_at(t, STEP_REST);
}

int target_rest_loaded(struct target *t, int rc, struct error *err)
{
	catcher_not_fatal(t->catcher);
	if (rc < 0 && *catcher_failed(t->catcher))
		return error_set(err, rc, "the VM could not be loaded: %.400s",
				 catcher_reason(t->catcher));
	return rc;
}

/* -------- a mover that was started again -------- */

int target_rest_again(struct target *t, struct error *err)
{
	struct catcher_options o = options_of(t);
	int rc = catcher_create_again(&o, &t->catcher, err);

	/* It waits for nobody: it has everything, or is gone. note_check() may ask it. */
	if (rc == -ENOENT) {
		t->note.rest = false;
		return note_check(&t->note, t->o.vmm, t->o.control, err);
	}
	if (rc < 0)
		return rc;
	t->receiver.memory = catcher_memory(t->catcher);
	return strcmp(catcher_name(t->catcher), t->note.vm) ? note_stale(&t->note, err) : 0;
}

/* -------- after a connection that broke -------- */

int target_rest_stop(struct target *t, struct error *err)
{
	target_rest_close(t);
	return t->catcher ? catcher_stop(t->catcher, err) : 0;
}

/* The source connects again, or has something to say: 1 or 0. */
static int wait_for_either(struct target *t, struct error *err)
{
	uint64_t end = io_now_ns() + t->o.timeout_ms * 1000000ull;

	for (;;) {
		struct pollfd p[] = {{.fd = t->control.fd, .events = POLLIN},
				     {.fd = t->o.listen, .events = POLLIN}};

		if (t->o.cancel && *t->o.cancel)
			return error_set(err, -ECANCELED, "cancelled");
		if (poll(p, 2, 20) < 0 && errno != EINTR)
			return error_errno(err, -errno, "poll");
		if (p[0].revents)
			return 0;
		if (p[1].revents)
			return 1;
		if (io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT, "the source did not come");
	}
}

int target_rest_return(struct target *t, struct error *err)
{
	int rc = missing_send(&t->control, t->receiver.memory, catcher_missing(t->catcher), NULL,
			      err);

	if (rc == 0)
		rc = wait_for_either(t, err);
	if (rc <= 0)
		return rc;
	rc = target_rest_accept(t, err);
	if (rc == 0)
		rc = catcher_start(t->catcher, t->rest, t->rest_streams, false, err);
	t->rest_streams = 0;
	return rc < 0 ? rc : target_at(t, STEP_REST);
}

/* -------- the VM runs -------- */

static void *resume_main(void *arg)
{
	struct target *t = arg;

	t->resume_rc = t->o.vmm->ops->resume(t->o.vmm, &t->resume_err);
	t->resumed = true;
	return NULL;
}

/* The VMM may wait for pages before it answers, and they need us meanwhile. */
int target_rest_resume(struct target *t, struct error *err)
{
	int rc = pthread_create(&t->resumer, NULL, resume_main, t);

	t->resuming = rc == 0;
	return rc ? error_errno(err, -rc, "cannot start a thread") : 0;
}

static void join_resumer(struct target *t)
{
	if (t->resuming)
		pthread_join(t->resumer, NULL);
	t->resuming = false;
}

/* What the source has to say while its pages come: only that it ends. */
static int hear_source(struct target *t, struct error *err)
{
	struct pollfd p = {.fd = t->control.fd, .events = POLLIN};
	struct message m = {0};
	int rc;

	if (t->control.fd < 0)
		return -EAGAIN;
	if (poll(&p, 1, 0) <= 0)
		return 0;
	rc = message_receive(&t->control, &m, NULL);
	if (rc == 0 && m.type == MESSAGE_ABORT)
		rc = error_set(err, -ENODATA, "the rest of the VM's memory is lost at the source");
	else
		rc = -EAGAIN;
	message_done(&m);
	return rc;
}

/*
 * Between sessions: when everything has come nobody need return. A source that has returned without
 * a new session may have said why.
 */
static int check_whole(struct target *t, struct error *err)
{
	int rc;

	if (catcher_running(t->catcher))
		return 0;
	if (!catcher_wait(t->catcher))
		return catcher_start(t->catcher, NULL, 0, false, err);
	rc = hear_source(t, err);
	return rc < 0 ? rc : -EAGAIN;
}

/* With a session, until it ends (-EAGAIN), or all pages are there and the VM runs (0). */
static int follow_session(struct target *t, struct error *err)
{
	bool said = false;
	int rc = check_whole(t, err);

	while (rc == 0) {
		uint64_t left = catcher_wait(t->catcher);

		if (t->resumed && t->resume_rc < 0 && t->resume_rc != -ENOTCONN)
			return target_refused(t, t->resume_rc, (*err = t->resume_err, err));
		if (t->resumed && !said) {
			said = true;
			/* One that is gone will be noticed when it is listened to. */
			if (t->control.fd >= 0)
				message_send(&t->control, MESSAGE_RUNNING, NULL, 0, NULL);
			rc = target_at(t, STEP_FOLLOW);
		}
		if (rc == 0 && !left && t->resumed)
			return 0;
		if (!left) {
			usleep(WHOLE_US); /* until it has resumed */
			continue;
		}
		if (rc == 0 && t->o.cancel && *t->o.cancel)
			return error_set(err, -ECANCELED,
					 "the VM runs, and waits %u s for a mover with --again to "
					 "bring the rest of its memory",
					 patience(t) / 1000);
		if (rc == 0 && (*catcher_failed(t->catcher) || catcher_lost(t->catcher)))
			rc = -EAGAIN;
		if (rc == 0)
			rc = hear_source(t, err);
	}
	return rc;
}

/* The session serves what is zero until the VMM has let go. */
static int finish(struct target *t, struct error *err)
{
	json_t *report = NULL;
	int rc = catcher_finish(t->catcher, &report, err);

	if (rc < 0)
		return rc;
	/* If this cannot be recorded the record says less than is true, which harms nobody. */
	target_note(t, NOTE_RUNNING, false, NULL);
	rc = target_at(t, STEP_WHOLE);
	if (rc == 0 && t->control.fd >= 0)
		message_send_json(&t->control, MESSAGE_WHOLE, report, NULL);
	json_decref(report);
	return rc;
}

/* It ran, and cannot go on. */
static int lose(struct target *t, int rc, struct error *err)
{
	t->o.vmm->ops->faults_end(t->o.vmm, err->text, NULL);
	target_note(t, NOTE_RUNNING, false, NULL);
	return rc;
}

int target_rest_follow(struct target *t, struct error *err)
{
	for (;;) {
		int rc = follow_session(t, err);

		/* It never ran, whatever else has failed since. */
		if (t->note.state == NOTE_ABORTED)
			return rc;
		if (rc == -EAGAIN && !catcher_lost(t->catcher)) {
			rc = target_let_in(t, patience(t), err);
			if (rc == 0)
				continue;
		}
		/* It has everything: if it does not say so in time, another mover may hear it. */
		if (rc == 0)
			return finish(t, err);
		if (catcher_lost(t->catcher))
			return lose(t, error_set(err, -ESRCH, "the VM died while its pages came"),
				    err);
		if (rc == -ETIMEDOUT)
			error_set(err, rc,
				  "the source has not come back for %u s: the VM cannot go on "
				  "without the rest of its memory and has ended",
				  patience(t) / 1000);
		if (rc == -ETIMEDOUT || rc == -ENODATA)
			return lose(t, rc, err);
		return rc;
	}
}

void target_rest_done(struct target *t)
{
	if (t->resuming && !t->resumed)
		t->o.vmm->ops->hang_up(t->o.vmm);
	join_resumer(t);
	target_rest_close(t);
	catcher_destroy(t->catcher);
	t->catcher = NULL;
	free(t->missing);
	free(t->zero);
	t->missing = t->zero = NULL;
}
