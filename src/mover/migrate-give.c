/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over at the source: the only place that gives a VM away or takes it back. The states
 * are those of the table in docs/formats/migration.md.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-source.h"

#define RETRY_MS 50
#define ABORT_MS 2000u /* for telling a target that may be gone */

static int set_note(struct source *s, enum note_state state, struct error *err)
{
	s->note.state = state;
	s->noted = true;
	return note_write(s->o.note, &s->note, err);
}

/* Returns to the session, and learns where it is there. */
static int come_back(struct source *s, enum session_state *ret, struct error *err)
{
	int rc;

	channel_close(&s->control);
	rc = source_connect(s, HELLO_RETURN, 0, &s->control, err);
	return rc < 0 ? rc : welcome_receive(&s->control, ret, err);
}

/*
 * Says it on the control connection; true when the target answers that, which it does when it has
 * recorded it. That the connection ends may also say that the target's mover had died before.
 */
static bool abort_answered(struct channel *ch, const char *reason)
{
	bool answered = false;
	struct message m = {0};

	if (ch->fd < 0)
		return false;
	message_send(ch, MESSAGE_ABORT, reason, strlen(reason), NULL);
	shutdown(ch->fd, SHUT_WR);
	while (message_receive(ch, &m, NULL) == 0) {
		answered |= m.type == MESSAGE_ABORT;
		message_done(&m);
	}
	return answered;
}

/* Tells the target that nothing will come of it; it may be gone. True when it knows. */
static bool say_abort(struct source *s, const char *reason)
{
	uint64_t end = io_now_ns() + ABORT_MS * 1000000ull;
	const struct timespec pause = {0, RETRY_MS * 1000000l};
	enum session_state state;
	bool told;

	s->cancel = s->control.cancel[0] = s->control.cancel[1] = NULL;
	if (s->o.timeout_ms > ABORT_MS)
		s->o.timeout_ms = ABORT_MS;
	s->control.timeout_ms = s->o.timeout_ms;
	told = abort_answered(&s->control, reason);
	/* Another mover may be about to go on there. */
	while (!told && s->may_be_prepared) {
		if (come_back(s, &state, NULL) == 0)
			told = abort_answered(&s->control, reason);
		if (told || io_now_ns() >= end)
			break;
		nanosleep(&pause, NULL);
	}
	channel_close(&s->control);
	return told;
}

/* It runs. A target that may have a record, and may not know, is to be told later. */
static void settle_note(struct source *s, bool told)
{
	if (!told && s->may_be_prepared)
		s->untold = set_note(s, NOTE_BACK, NULL) == 0;
	else if (s->noted)
		unlink(s->o.note);
}

int source_take_back(struct source *s, int rc, struct error *err)
{
	const struct machine_ops *ops = s->o.vmm->ops;
	struct error reason = {{0}};
	int bad = 0;
	bool told;

	source_rest_stop(s);
	if (s->may_be_paused)
		bad = ops->resume(s->o.vmm, &reason);
	brake_release(&s->brake);
	if (s->logging)
		ops->dirty_stop(s->o.vmm, NULL);
	s->may_be_paused = s->logging = false;
	told = say_abort(s, err && err->text[0] ? err->text : "failed");
	if (bad < 0)
		return error_set(err, bad, "the VM could not be resumed: %.400s", reason.text);
	bad = source_at(s, STEP_TOLD);
	if (bad < 0)
		return bad;
	settle_note(s, told);
	return rc;
}

/* The target runs the VM, and may stop waiting for us. */
static int let_go(struct source *s, struct migrate_result *ret, struct error *err)
{
	int rc;

	ret->outcome = MIGRATE_MOVED;
	rc = source_at(s, STEP_RUNNING);
	if (rc == 0)
		rc = set_note(s, NOTE_GONE, err);
	if (rc < 0)
		return rc;
	if (s->control.fd >= 0)
		message_send(&s->control, MESSAGE_RUNNING, NULL, 0, NULL);
	rc = s->o.vmm->ops->stop(s->o.vmm, err);
	return rc == -ENOTCONN ? 0 : rc; /* gone already */
}

/*
 * The right to run is here again, as before COMMIT; the target waits to hear that we know. If that
 * cannot be recorded the VM, which will run, says it.
 */
static int aborted(struct source *s, struct migrate_result *ret, struct error *err)
{
	int rc;

	set_note(s, NOTE_GIVING, NULL);
	rc = source_at(s, STEP_ABORTED);
	if (rc < 0)
		return rc;
	ret->outcome = MIGRATE_HERE;
	s->may_be_paused = s->may_be_prepared = true;
	return error_set(err, -ECONNABORTED, "the target could not run the VM");
}

/* Waits for the answer to a COMMIT. 1: it runs; 0: no answer. -ECONNABORTED: it never will. */
static int hear(struct source *s, struct error *err)
{
	struct message m = {0};
	int rc = message_expect(&s->control, MESSAGE_RUNNING, &m, err);

	message_done(&m);
	if (rc == 0)
		return 1;
	if (rc == -ECONNABORTED)
		return rc;
	channel_close(&s->control);
	return 0;
}

/* The same, and what comes after it when pages follow the VM. */
static int hear_all(struct source *s, struct error *err)
{
	int rc = hear(s, err);

	if (rc > 0 && s->note.rest && (rc = source_rest_follow(s, err)) > 0)
		rc = hear(s, err);
	return rc;
}

/* One attempt to get an answer, as hear_all(). */
static int ask(struct source *s, struct error *err)
{
	enum session_state state;
	int rc;

	if (come_back(s, &state, err) < 0)
		return 0;
	switch (state) {
	case SESSION_PREPARED_REST:
	case SESSION_RUNNING_REST:
		rc = source_rest_return(s, err);
		if (s->memory_gone)
			abort_answered(&s->control, err->text);
		if (rc < 0)
			return s->memory_gone || rc == MIGRATE_KILLED ? rc : 0;
		if (state == SESSION_RUNNING_REST)
			return hear_all(s, err);
		__attribute__((fallthrough));
	case SESSION_PREPARED:
		if (message_send(&s->control, MESSAGE_COMMIT, NULL, 0, err) < 0)
			return 0;
		return hear_all(s, err);
	case SESSION_RUNNING:
		return hear(s, err);
	case SESSION_ABORTED:
		return -ECONNABORTED;
	default:
		error_set(err, -ENOENT, "the target knows nothing of this VM");
		return 0;
	}
}

/* The VM went without some of its memory, and that is gone here. The target has been told. */
static int lost(struct source *s, struct migrate_result *ret, const struct error *why,
		struct error *err)
{
	ret->outcome = MIGRATE_MOVED;
	set_note(s, NOTE_GONE, NULL);
	return error_set(err, -ENODATA, "the VM is lost: %.400s", why->text);
}

/*
 * In `given`: until the target answers, or the caller's patience ends. A cancel ends our part only,
 * after a question that was not answered; the VM stays given.
 */
static int settle(struct source *s, bool committed, struct migrate_result *ret, struct error *err)
{
	uint64_t end = io_now_ns() + s->o.return_ms * 1000000ull;
	struct error reason = {{0}};
	int rc = committed ? hear_all(s, &reason) : 0;

	ret->outcome = MIGRATE_UNDECIDED;
	while (rc == 0) {
		const struct timespec pause = {0, RETRY_MS * 1000000l};

		rc = ask(s, &reason);
		if (rc)
			break;
		if ((s->o.return_ms && io_now_ns() >= end) || (s->o.cancel && *s->o.cancel))
			return error_set(
				err, -EINPROGRESS, "the VM %s until the target answers: %.300s",
				s->step_ns[STEP_FOLLOW] ? "runs there and waits for its memory"
							: "stays paused",
				reason.text);
		nanosleep(&pause, NULL);
	}
	if (rc == MIGRATE_KILLED)
		return rc;
	if (s->memory_gone)
		return lost(s, ret, &reason, err);
	return rc > 0 ? let_go(s, ret, err) : aborted(s, ret, err);
}

int source_hand_over(struct source *s, struct migrate_result *ret, struct error *err)
{
	int rc = set_note(s, NOTE_GIVING, err);

	if (rc == 0)
		rc = source_at(s, STEP_GIVING);
	if (rc == 0)
		rc = s->o.vmm->ops->pause(s->o.vmm, false, err);
	if (rc == 0)
		rc = source_at(s, STEP_HELD);
	if (rc == 0 && s->cancel && *s->cancel)
		rc = error_set(err, -ECANCELED, "cancelled");
	if (rc == 0)
		rc = set_note(s, NOTE_GIVEN, err);
	if (rc < 0)
		return rc;
	s->cancel = s->control.cancel[0] = NULL;
	rc = source_at(s, STEP_GIVEN);
	if (rc < 0)
		return rc;
	ret->outcome = MIGRATE_UNDECIDED;
	message_send(&s->control, MESSAGE_COMMIT, NULL, 0, NULL);
	rc = source_at(s, STEP_COMMITTED);
	return rc < 0 ? rc : settle(s, true, ret, err);
}

/* What the record and the VM say together. COMMIT was never sent for a VM that runs. */
static int decide(struct source *s, struct migrate_result *ret, struct error *err)
{
	enum machine_state state = MACHINE_PAUSED;
	int rc = s->o.vmm->ops->state(s->o.vmm, &state, err);

	if (rc < 0 && rc != -ENOTCONN)
		return rc;
	switch (s->note.state) {
	case NOTE_GONE:
		ask(s, NULL); /* it may wait to hear that we know */
		return let_go(s, ret, err);
	case NOTE_GIVEN:
		if (state != MACHINE_RUNNING)
			return settle(s, false, ret, err);
		__attribute__((fallthrough));
	case NOTE_GIVING:
		ret->outcome = MIGRATE_HERE;
		s->may_be_paused = s->may_be_prepared = true;
		return error_set(err, -ECANCELED, "the migration had not come to its end");
	case NOTE_BACK: /* its user may have paused it since */
		ret->outcome = MIGRATE_HERE;
		s->may_be_prepared = true;
		return error_set(err, -ECONNABORTED, "the VM has stayed here");
	default:
		return error_set(err, -EINVAL, "%s is the record of a target", s->o.note);
	}
}

int migrate_send_again(const struct migrate_options *o, struct migrate_result *ret,
		       struct error *err)
{
	struct source s;
	int rc;

	*ret = (struct migrate_result){.outcome = MIGRATE_UNDECIDED};
	source_init(&s, o);
	rc = note_read(o->note, &s.note, err);
	if (rc == 0)
		rc = note_check(&s.note, o->vmm, o->control, err);
	if (rc == 0) {
		s.noted = true;
		rc = decide(&s, ret, err);
		if (rc < 0 && rc != MIGRATE_KILLED && ret->outcome == MIGRATE_HERE)
			rc = source_take_back(&s, rc, err);
		ret->untold = s.untold;
	}
	source_done(&s);
	return rc;
}
