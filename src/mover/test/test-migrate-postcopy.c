/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy between two stand-ins of a VMM. The guest at the target compares what it reads with the
 * memory of the source, which stands still: a page that is missing, stale or zero is seen.
 */

#include "mover/test/pair.h"

static void start(struct pair *p, const char *dir, bool tcp, enum migrate_mode mode)
{
	pair_init(p, dir, tcp);
	fake_read(&p->to, p->from.ram);
	p->send.mode = mode;
	p->from.pages_a_turn = mode == MIGRATE_HYBRID ? 3000 : 4;
	p->send.max_downtime_ms = 1;
	p->send.max_rounds = 1;
	p->receive.patience_ms = 5000;
}

static void assert_followed(struct pair *p)
{
	uint64_t reads;

	assert_moved(p);
	assert_int_equal(p->to.uffd, -1);
	reads = p->to.reads;
	for (unsigned i = 0; p->to.reads < reads + 100 && i < 5000; i++)
		usleep(1000);
	assert_true(p->to.reads >= reads + 100);
	assert_int_equal(p->to.differ, 0);
}

static json_int_t reported(const struct pair *p, const char *name)
{
	return json_integer_value(json_object_get(p->sent.report, name));
}

/* Pages come by themselves so slowly that there is time for other things to happen. */
static void slow_down(struct pair *p)
{
	p->send.bandwidth = 4 << 20;
}

static void test_moves(void **state)
{
	static const enum compression kinds[] = {COMPRESSION_NONE, COMPRESSION_LZ4};

	for (unsigned i = 0; i < 8; i++) {
		const json_t *waited;
		struct pair p;

		start(&p, *state, i & 1, i & 2 ? MIGRATE_HYBRID : MIGRATE_POSTCOPY);
		if (i & 1)
			use_tls(&p);
		p.send.compression = kinds[i / 4];
		p.send.streams = 1 + i % 3;
		pair_run(&p);
		assert_followed(&p);
		assert_true(reported(&p, "downtime_ns") > 0);
		if (i & 2 && !json_object_get(p.sent.report, "missing")) {
			pair_done(&p); /* the guest hardly wrote: it came with all its pages */
			continue;
		}
		assert_int_equal(reported(&p, "round_count"), i & 2 ? 1 : 0);
		assert_true(reported(&p, "missing") > 0);
		assert_true(i & 2 || reported(&p, "followed") > 0);
		waited = json_object_get(p.sent.report, "waited");
		assert_true(i & 2 || json_integer_value(json_object_get(waited, "faults")) > 0);
		assert_int_equal(json_array_size(json_object_get(waited, "vcpus")), 1);
		pair_done(&p);
	}
}

/* With a hybrid that converges nothing is left to follow. */
static void test_converges(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_HYBRID);
	p.from.pages_a_turn = 0;
	p.send.max_downtime_ms = 300;
	pair_run(&p);
	assert_moved(&p);
	assert_int_equal(p.to.differ, 0);
	assert_null(json_object_get(p.sent.report, "missing"));
	pair_done(&p);
}

static void test_obstacles(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_POSTCOPY);
	p.to.fail[FAKE_MISSING] = -EPERM;
	pair_run(&p);
	assert_stayed(&p);
	assert_int_equal(p.send_rc, -EBUSY);
	assert_non_null(strstr(p.send_err.text, "--precopy"));
	assert_int_equal(p.from.calls[FAKE_PAUSE], 0);
	assert_int_equal(p.to.state, MACHINE_INCOMING);
	pair_done(&p);
}

/* Killing either mover at each step; new ones take over where there is a record. */
static void kill_at(void **state, int step, bool receiver, enum migrate_mode mode)
{
	struct pair p;

	start(&p, *state, step & 1, mode);
	*(receiver ? &p.kill_receiver : &p.kill_sender) = step;
	pair_run(&p);
	if (p.world.running != 1)
		fail_msg("%s killed at %d: %d run; %d %s / %d %s", receiver ? "target" : "source",
			 step, p.world.running, p.send_rc, p.send_err.text, p.receive_rc,
			 p.receive_err.text);
	if (p.to.state == MACHINE_RUNNING)
		assert_followed(&p);
	else
		assert_int_equal(p.from.state, MACHINE_RUNNING);
	pair_done(&p);
}

static void test_kill(void **state)
{
	for (int step = 0; step < STEP_COUNT; step++) {
		kill_at(state, step, false, MIGRATE_POSTCOPY);
		kill_at(state, step, true, MIGRATE_POSTCOPY);
		kill_at(state, step, step & 1, MIGRATE_HYBRID);
		kill_at(state, step, !(step & 1), MIGRATE_HYBRID);
	}
}

static void test_cancel(void **state)
{
	for (int step = 0; step < STEP_COUNT; step++) {
		struct pair p;

		if (step == STEP_ROUND) /* there is none */
			continue;
		start(&p, *state, false, MIGRATE_POSTCOPY);
		p.cancel_at = step;
		pair_run(&p);
		if (step < STEP_GIVEN || step == STEP_REST)
			assert_stayed(&p);
		else
			assert_followed(&p);
		assert_int_equal(p.world.running, 1);
		pair_done(&p);
	}
}

/* The source's VMM dies while pages follow: its mover holds the memory and goes on. */
static void test_source_vmm_dies(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_POSTCOPY);
	p.die_sender = STEP_FOLLOW;
	slow_down(&p);
	pair_run(&p);
	assert_followed(&p);
	pair_done(&p);
}

/* Both are gone: the VM cannot go on, and ends. */
static void test_source_lost(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_POSTCOPY);
	p.die_sender = p.kill_sender = STEP_FOLLOW;
	slow_down(&p);
	pair_run(&p);
	assert_int_equal(p.send_rc, -ENODATA);
	assert_int_equal(p.receive_rc, -ENODATA);
	assert_true(p.to.dead);
	assert_int_equal(p.world.running, 0);
	pair_done(&p);
}

/* Nobody comes back: the VM does not wait for ever. */
static void test_patience(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_POSTCOPY);
	p.receive.patience_ms = 300;
	p.kill_sender = STEP_FOLLOW;
	slow_down(&p);
	assert_int_equal(pthread_create(&p.thread, NULL, receiver_main, &p), 0);
	p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
	assert_int_equal(p.send_rc, MIGRATE_KILLED);
	pthread_join(p.thread, NULL);
	assert_int_equal(p.receive_rc, -ETIMEDOUT);
	assert_non_null(strstr(p.receive_err.text, "has not come back"));
	assert_true(p.to.dead);
	assert_int_equal(p.world.running, 0);
	pair_done(&p);
}

/* The target's VMM dies: it ran, and the source does not run it again. */
static void test_target_vmm_dies(void **state)
{
	static const int steps[] = {STEP_REST, STEP_PREPARED, STEP_GIVEN, STEP_FOLLOW};

	for (unsigned i = 0; i < 4; i++) {
		struct pair p;

		start(&p, *state, false, MIGRATE_POSTCOPY);
		p.die_receiver = steps[i];
		slow_down(&p);
		pair_run(&p);
		if (p.world.running > (i < 2))
			fail_msg("step %d: source %s, target %s", steps[i], p.send_err.text,
				 p.receive_err.text);
		if (i < 2)
			assert_stayed(&p);
		else
			assert_int_equal(p.from.state, MACHINE_FAILED);
		pair_done(&p);
	}
}

/* Resuming is refused: that answer lets the source take the VM back. */
static void test_resume_refused(void **state)
{
	struct pair p;

	start(&p, *state, false, MIGRATE_POSTCOPY);
	p.to.fail[FAKE_RESUME] = -EIO;
	pair_run(&p);
	assert_stayed(&p);
	assert_int_equal(p.world.running, 1);
	pair_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),		cmocka_unit_test(test_converges),
		cmocka_unit_test(test_obstacles),	cmocka_unit_test(test_kill),
		cmocka_unit_test(test_cancel),		cmocka_unit_test(test_source_vmm_dies),
		cmocka_unit_test(test_source_lost),	cmocka_unit_test(test_patience),
		cmocka_unit_test(test_target_vmm_dies), cmocka_unit_test(test_resume_refused),
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	signal(SIGPIPE, SIG_IGN);
	if (fd < 0) {
		printf("1..0 # SKIP this user may not use userfaultfd\n");
		return 0;
	}
	close(fd);
	return cmocka_run_group_tests(tests, pair_setup, scratch_teardown);
}
