/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over at the target: the only place that lets a VM that came run. The states are those
 * of the table in docs/formats/migration.md; the record is always written before the step.
 */

#include <errno.h>
#include <string.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-target.h"

#define FAREWELL_TIMEOUTS 6 /* how long a source is waited for that is to hear how it went */
#define HURRY_MS 2000u	    /* the same, after a cancel */

int target_note(struct target *t, enum note_state state, bool rest, struct error *err)
{
	t->note.state = state;
	t->note.rest = rest;
	return note_write(t->o.note, &t->note, err);
}

/* The VM that will not run. */
static void end_vm(struct target *t, const char *reason)
{
	/* One that waits for its memory would not hear. */
	if (t->note.rest)
		t->o.vmm->ops->faults_end(t->o.vmm, reason, NULL);
	t->o.vmm->ops->stop(t->o.vmm, NULL);
}

/*
 * It will never run here. If that cannot be recorded nobody is told, and the VM stays as it is: a
 * later mover would find `prepared` and think it whole.
 */
static int give_up(struct target *t, bool told, int code, struct error *err)
{
	const char *reason = err ? err->text : "aborted";
	const struct note before = t->note;
	int rc;

	t->note.told = told;
	rc = target_note(t, NOTE_ABORTED, t->note.rest, err);
	if (rc < 0) {
		t->note = before;
		return rc;
	}
	rc = target_at(t, STEP_ABORTED);
	if (rc < 0)
		return rc;
	end_vm(t, reason);
	t->control.cancel[0] = NULL;
	if (t->control.fd >= 0)
		message_send(&t->control, MESSAGE_ABORT, reason, strlen(reason), NULL);
	return code;
}

int target_abort(struct target *t, int code, struct error *err)
{
	return give_up(t, false, code, err);
}

int target_refused(struct target *t, int rc, struct error *err)
{
	bool loaded = false;

	if (t->o.vmm->ops->loaded(t->o.vmm, &loaded, NULL) == 0 && loaded)
		return target_abort(t, rc, err);
	return error_prefix(err, -ENOTRECOVERABLE, "the VM has come and may have run, but now");
}

/* COMMIT has come (maybe again after a death): the VM runs. */
static int run(struct target *t, struct error *err)
{
	int rc = t->note.rest ? target_rest_resume(t, err) : t->o.vmm->ops->resume(t->o.vmm, err);

	/* No answer: it may have run. */
	if (rc < 0 && rc != -ENOTCONN)
		return target_refused(t, rc, err);
	return target_at(t, STEP_COMMITTED);
}

static int commit(struct target *t, struct error *err)
{
	enum machine_state state;
	int rc = t->o.vmm->ops->state(t->o.vmm, &state, err);

	if (rc == 0 && state != MACHINE_PAUSED)
		rc = error_set(err, -EIO, "the VM is not there any more");
	if (rc < 0)
		return target_abort(t, rc, err);
	rc = target_note(t, NOTE_RUNNING, t->note.rest, err);
	if (rc < 0) {
		/* Which of the two is on the disk is not known; the VM has not run, and will not.
		 */
		t->note.state = NOTE_PREPARED;
		return target_abort(t, rc, err);
	}
	rc = target_at(t, STEP_GIVEN);
	return rc < 0 ? rc : run(t, err);
}

/* Says RUNNING. 0 when the source has said that it knows. */
static int say_running(struct target *t)
{
	struct message m = {0};
	int rc;

	if (t->control.fd < 0)
		return -EPIPE;
	rc = message_send(&t->control, MESSAGE_RUNNING, NULL, 0, NULL);
	if (rc == 0)
		rc = message_expect(&t->control, MESSAGE_RUNNING, &m, NULL);
	message_done(&m);
	channel_close(&t->control);
	return rc;
}

static enum session_state session_of(const struct target *t)
{
	static const enum session_state rest[] = {[NOTE_PREPARED] = SESSION_PREPARED_REST,
						  [NOTE_RUNNING] = SESSION_RUNNING_REST,
						  [NOTE_ABORTED] = SESSION_ABORTED};
	static const enum session_state of[] = {[NOTE_PREPARED] = SESSION_PREPARED,
						[NOTE_RUNNING] = SESSION_RUNNING,
						[NOTE_ABORTED] = SESSION_ABORTED};

	return (t->note.rest ? rest : of)[t->note.state];
}

int target_let_in(struct target *t, unsigned timeout_ms, struct error *err)
{
	struct hello hello;
	int rc = target_rest_stop(t, err);

	channel_close(&t->control);
	if (rc == 0)
		rc = target_accept(t, HELLO_RETURN, timeout_ms, &t->control, &hello, err);
	if (rc < 0)
		return rc;
	rc = welcome_send(&t->control, session_of(t), NULL);
	if (rc == 0 && t->catcher && t->note.rest && t->note.state != NOTE_ABORTED)
		rc = target_rest_return(t, NULL);
	if (rc < 0)
		channel_close(&t->control);
	return rc == MIGRATE_KILLED ? rc : 0;
}

/* A source that does not come is not waited for for ever: the record can tell it later also. */
static unsigned farewell_ms(const struct target *t)
{
	return t->o.return_ms ? t->o.return_ms : FAREWELL_TIMEOUTS * t->o.timeout_ms;
}

/* In `prepared`, with a connection: 0 when it runs, -EAGAIN when the connection ended. */
static int await_commit(struct target *t, struct error *err)
{
	bool cut = t->note.rest && !(t->catcher && catcher_running(t->catcher));
	struct message m = {0};
	uint32_t type;
	int rc;

	t->control.cancel[1] = t->note.rest && !cut ? catcher_failed(t->catcher) : NULL;
	rc = message_receive(&t->control, &m, err);
	t->control.cancel[1] = NULL;
	type = m.type;
	message_done(&m);
	if (rc == -ECANCELED && t->o.cancel && *t->o.cancel)
		return rc;
	if (rc == 0 && type == MESSAGE_COMMIT && !cut)
		return commit(t, err);
	if (rc == 0 && type == MESSAGE_ABORT)
		return give_up(t, true, -ECONNABORTED,
			       (error_set(err, 0, "the source gave up"), err));
	return -EAGAIN;
}

/* One that is cancelled has said it all the same. */
static void say_prepared(struct target *t)
{
	int rc = message_send(&t->control, MESSAGE_PREPARED, NULL, 0, NULL);

	if (rc < 0 && rc != -ECANCELED)
		channel_close(&t->control);
}

static int prepared(struct target *t, struct error *err)
{
	int rc = t->control.fd >= 0 ? 0 : -EAGAIN;

	for (;;) {
		if (rc == 0)
			rc = await_commit(t, err);
		if (rc == -ECANCELED)
			return target_abort(t, rc, err);
		if (rc != -EAGAIN)
			return rc;
		rc = target_let_in(t, t->o.return_ms, err);
		if (rc == -ECANCELED)
			continue;
		if (rc < 0)
			return rc;
		if (t->control.fd < 0)
			rc = -EAGAIN;
	}
}

/* The source has heard *aborted*. 0 when it has said that it knows, which is recorded. */
static int hear_abort(struct target *t)
{
	static const char known[] = "known";
	uint32_t type = MESSAGE_COMMIT;
	struct message m = {0};
	int rc = t->control.fd < 0 ? -EPIPE : 0;

	/* A COMMIT may have been on its way. */
	while (rc == 0 && type == MESSAGE_COMMIT) {
		rc = message_receive(&t->control, &m, NULL);
		type = m.type;
		message_done(&m);
	}
	if (rc == 0 && type != MESSAGE_ABORT)
		rc = -EPROTO;
	if (rc == 0) {
		t->note.told = true;
		rc = target_note(t, NOTE_ABORTED, t->note.rest, NULL);
		t->note.told = rc == 0;
	}
	if (rc == 0)
		rc = target_at(t, STEP_TOLD);
	if (rc == 0)
		message_send(&t->control, MESSAGE_ABORT, known, strlen(known), NULL);
	channel_close(&t->control);
	return rc;
}

/*
 * A cancel shortens what is left, and no more: a source that has given the VM waits until it is
 * told. True when there is one, which is not seen again.
 */
static bool hurry(struct target *t)
{
	if (!t->o.cancel || !*t->o.cancel)
		return false;
	t->o.cancel = t->control.cancel[0] = NULL;
	if (farewell_ms(t) > HURRY_MS)
		t->o.return_ms = HURRY_MS;
	if (t->o.timeout_ms > HURRY_MS)
		t->o.timeout_ms = HURRY_MS;
	t->control.timeout_ms = t->o.timeout_ms;
	return true;
}

/* Until the source has answered what is said to it. -ETIMEDOUT: it was not to be found. */
static int tell(struct target *t, int (*say)(struct target *t))
{
	uint64_t end = io_now_ns() + farewell_ms(t) * 1000000ull;
	int rc;

	do {
		if (hurry(t))
			end = io_now_ns() + farewell_ms(t) * 1000000ull;
		rc = say(t);
		if (rc == 0 || rc == MIGRATE_KILLED)
			return rc;
		if (io_now_ns() >= end)
			return -ETIMEDOUT;
		rc = target_let_in(t, farewell_ms(t), NULL);
	} while (rc == 0 || rc == -ECANCELED);
	return rc;
}

/* Until the source knows that the VM will never run here. */
static int tell_aborted(struct target *t)
{
	return t->note.told ? 0 : tell(t, hear_abort);
}

/* Until the source knows that the VM runs. */
static int tell_running(struct target *t)
{
	return tell(t, say_running);
}

/* It ran, and is lost or stands: the source may be there still and is told that it ran. */
static int tell_lost(struct target *t, int rc)
{
	bool ran = rc == -ESRCH || (rc == -ENOTRECOVERABLE && !t->note.rest);

	if (ran && target_let_in(t, t->o.timeout_ms, NULL) == 0)
		say_running(t);
	return rc;
}

/* The VM is the source's. */
static int aborted(struct target *t, int rc, struct migrate_result *ret, struct error *err)
{
	if (rc == 0)
		rc = error_set(err, -ECONNABORTED, "the migration was aborted");
	ret->outcome = MIGRATE_HERE;
	if (tell_aborted(t) == MIGRATE_KILLED)
		return MIGRATE_KILLED;
	ret->untold = !t->note.told;
	return rc;
}

int target_take_over(struct target *t, struct migrate_result *ret, struct error *err)
{
	struct error local = {{0}};
	int rc;

	if (!err)
		err = &local;
	ret->outcome = MIGRATE_UNDECIDED;
	/* The mover that recorded it may not have come to that. */
	if (t->note.state == NOTE_ABORTED)
		end_vm(t, "the migration was aborted");
	rc = t->note.state == NOTE_PREPARED ? target_at(t, STEP_PREPARED) : 0;
	if (rc == 0 && t->note.state == NOTE_RUNNING)
		rc = run(t, err);
	else if (rc == 0 && t->note.state == NOTE_PREPARED) {
		if (t->control.fd >= 0)
			say_prepared(t);
		rc = prepared(t, err);
	}
	if (rc == 0 && t->note.state == NOTE_RUNNING && t->note.rest)
		rc = target_rest_follow(t, err);
	if (rc == MIGRATE_KILLED)
		return rc;
	if (t->note.state == NOTE_ABORTED)
		return aborted(t, rc, ret, err);
	if (rc == -ECANCELED)
		return rc;
	ret->outcome = rc < 0 && t->note.state != NOTE_RUNNING ? MIGRATE_UNDECIDED : MIGRATE_MOVED;
	if (rc < 0)
		return tell_lost(t, rc);
	rc = tell_running(t);
	if (rc == MIGRATE_KILLED)
		return rc;
	ret->untold = rc < 0;
	return ret->untold ? 0 : target_at(t, STEP_RUNNING);
}
