/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migrations that the target gives up: the source gets its VM back, and both sides come to know it,
 * whoever dies meanwhile.
 */

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/migrate-note.h"
#include "mover/test/pair.h"

static void *again_main(void *arg)
{
	struct pair *p = arg;

	result_done(&p->received);
	p->receive_rc = migrate_receive_again(&p->receive, &p->received, &p->receive_err);
	return NULL;
}

static void send_again(struct pair *p)
{
	result_done(&p->sent);
	p->send_rc = migrate_send_again(&p->send, &p->sent, &p->send_err);
}

/* New movers on both sides at once, as two people start them. */
static void settle(struct pair *p)
{
	pthread_t thread;

	p->cancel = false;
	p->receive.cancel = NULL;
	p->receive.return_ms = 0;
	assert_int_equal(pthread_create(&thread, NULL, again_main, p), 0);
	send_again(p);
	pthread_join(thread, NULL);
}

static void assert_here(struct pair *p)
{
	assert_int_equal(p->sent.outcome, MIGRATE_HERE);
	assert_int_equal(p->received.outcome, MIGRATE_HERE);
	assert_int_equal(p->from.state, MACHINE_RUNNING);
	assert_true(p->to.dead);
	assert_int_equal(p->world.running, 1);
}

/* Both know: the target's record says so, and the source has none. */
static void assert_settled(struct pair *p)
{
	struct note note;

	assert_here(p);
	if (p->sent.untold || p->received.untold)
		fail_msg("untold: %s, %s", p->send_err.text, p->receive_err.text);
	assert_int_not_equal(access(p->from_note, F_OK), 0);
	assert_int_equal(note_read(p->to_note, &note, NULL), 0);
	assert_int_equal(note.state, NOTE_ABORTED);
	assert_true(note.told);
}

static void assert_note(const char *path, enum note_state state)
{
	struct note note;

	assert_int_equal(note_read(path, &note, NULL), 0);
	assert_int_equal(note.state, state);
	assert_false(note.told);
}

/* A target whose VMM does not resume what it loaded; nobody dies. */
static void test_refused(void **state)
{
	for (int way = 0; way < 4; way++) {
		struct pair p;

		pair_init(&p, *state, way & 1);
		if (way & 2)
			use_tls(&p);
		p.to.fail[FAKE_RESUME] = -EIO;
		pair_run(&p);
		assert_int_equal(p.send_rc, -ECONNABORTED);
		assert_int_equal(p.receive_rc, -EIO);
		assert_settled(&p);
		pair_done(&p);
	}
}

/* The same, and a mover dies when it is recorded, or when the other side knows. */
static void test_refused_killed(void **state)
{
	static const int steps[] = {STEP_ABORTED, STEP_TOLD};

	for (int way = 0; way < 4; way++) {
		bool receiver = way & 1;
		int step = steps[way / 2];
		struct pair p;

		pair_init(&p, *state, false);
		p.to.fail[FAKE_RESUME] = -EIO;
		*(receiver ? &p.kill_receiver : &p.kill_sender) = step;
		pair_run(&p);
		assert_int_equal(receiver ? p.kill_receiver : p.kill_sender, -1);
		/* The last word of all may be lost: then the source may go on asking. */
		if (step == STEP_TOLD) {
			assert_here(&p);
			assert_true(p.sent.untold);
			assert_false(p.received.untold);
			assert_note(p.from_note, NOTE_BACK);
		} else {
			assert_settled(&p);
		}
		pair_done(&p);
	}
}

/* Neither mover is replaced before a person does: whoever died, whenever. */
static void test_refused_both_killed(void **state)
{
	static const int sender[] = {STEP_GIVEN, STEP_COMMITTED, STEP_ABORTED};
	static const int receiver[] = {STEP_PREPARED, STEP_GIVEN, STEP_ABORTED};

	for (unsigned way = 0; way < 9; way++) {
		struct pair p;

		pair_init(&p, *state, false);
		p.to.fail[FAKE_RESUME] = -EIO;
		p.kill_sender = sender[way / 3];
		p.kill_receiver = receiver[way % 3];
		p.send.return_ms = 100;
		assert_int_equal(pthread_create(&p.thread, NULL, receiver_once, &p), 0);
		p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
		fake_disconnect(&p.from);
		pthread_join(p.thread, NULL);
		fake_disconnect(&p.to);
		p.kill_sender = p.kill_receiver = -1;
		p.send.return_ms = 0;
		assert_true(p.world.running <= 1);
		if (access(p.from_note, F_OK) == 0) {
			settle(&p);
			assert_settled(&p);
		}
		pair_done(&p);
	}
}

/* A person ends the target's mover while the source is away: it is told when it comes. */
static void test_cancelled_target(void **state)
{
	_Atomic bool cancel = false;
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_sender = STEP_GIVEN;
	p.receive.cancel = &cancel;
	p.receive.return_ms = 0;
	assert_int_equal(pthread_create(&p.thread, NULL, receiver_main, &p), 0);
	p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
	assert_int_equal(p.send_rc, MIGRATE_KILLED);
	fake_disconnect(&p.from);
	cancel = true;
	pthread_join(p.thread, NULL);
	assert_int_equal(p.receive_rc, -ECANCELED);
	assert_int_equal(p.received.outcome, MIGRATE_HERE);
	assert_true(p.received.untold);
	assert_true(p.to.dead);
	assert_note(p.to_note, NOTE_ABORTED);
	assert_int_equal(p.world.running, 0);

	/* Nobody comes: it stays so. */
	p.receive.cancel = NULL;
	p.receive.return_ms = 50;
	again_main(&p);
	assert_int_equal(p.receive_rc, -ECONNABORTED);
	assert_true(p.received.untold);
	assert_note(p.to_note, NOTE_ABORTED);

	settle(&p);
	assert_settled(&p);
	pair_done(&p);
}

/* The same at each step, with a source that waits: it hears how it went, and nobody else is needed.
 */
static void test_cancelled_at(void **state)
{
	for (int way = 0; way < 2 * STEP_COUNT; way++) {
		struct pair p;

		pair_init(&p, *state, way & 1);
		p.cancel_target_at = way / 2;
		pair_run(&p);
		if (p.send_rc)
			assert_stayed(&p);
		else
			assert_moved(&p);
		if (p.sent.untold || p.received.untold)
			fail_msg("step %d, untold: %s, %s", way / 2, p.send_err.text,
				 p.receive_err.text);
		assert_int_equal(p.world.running, 1);
		pair_done(&p);
	}
}

/* The source has its VM back, and the target, which is away, may wait for it. */
static void test_away_target(void **state)
{
	unsigned resumed;
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_receiver = STEP_PREPARED;
	assert_int_equal(pthread_create(&p.thread, NULL, receiver_once, &p), 0);
	p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
	pthread_join(p.thread, NULL);
	assert_int_equal(p.receive_rc, MIGRATE_KILLED);
	fake_disconnect(&p.to);
	assert_true(p.send_rc < 0);
	assert_true(p.sent.untold);
	assert_note(p.from_note, NOTE_BACK);
	assert_note(p.to_note, NOTE_PREPARED);
	assert_int_equal(p.from.state, MACHINE_RUNNING);

	/* What its user does with it meanwhile is not undone. */
	p.from.vmm.ops->pause(&p.from.vmm, false, NULL);
	resumed = p.from.calls[FAKE_RESUME];
	settle(&p);
	assert_int_equal(p.from.state, MACHINE_PAUSED);
	assert_int_equal(p.from.calls[FAKE_RESUME], resumed);
	p.from.vmm.ops->resume(&p.from.vmm, NULL);
	assert_settled(&p);
	pair_done(&p);
}

/* A target that has said itself why it cannot has no record that waits. */
static void test_failed_load(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.to.fail[FAKE_LOAD] = -EIO;
	pair_run(&p);
	assert_stayed(&p);
	assert_false(p.sent.untold);
	pair_done(&p);
}

/* Records that were written before `told` was: the source may not know. */
static void test_old_record(void **state)
{
	static const char text[] =
		"{\"control\": \"/c\", \"rest\": false, \"session\": "
		"\"00112233445566778899aabbccddeeff\", \"state\": \"aborted\", \"token\": "
		"\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\", "
		"\"version\": 1, \"vm\": \"v\"}";
	CLEANUP_FREE char *path = io_format("%s/old", (const char *)*state);
	struct error err;
	struct note note;

	assert_int_equal(io_write_file(path, text, strlen(text), &err), 0);
	assert_int_equal(note_read(path, &note, &err), 0);
	assert_int_equal(note.state, NOTE_ABORTED);
	assert_false(note.told);
	note.told = true;
	assert_int_equal(note_write(path, &note, &err), 0);
	assert_int_equal(note_read(path, &note, &err), 0);
	assert_true(note.told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refused_killed),
		cmocka_unit_test(test_refused_both_killed),
		cmocka_unit_test(test_cancelled_target),
		cmocka_unit_test(test_cancelled_at),
		cmocka_unit_test(test_away_target),
		cmocka_unit_test(test_failed_load),
		cmocka_unit_test(test_old_record),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, pair_setup, scratch_teardown);
}
