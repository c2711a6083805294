/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations between two stand-ins of a VMM: contents, and that exactly one runs whoever dies. */

#include "lib/cleanup.h"
#include "mover/migrate-greet.h"
#include "mover/migrate-note.h"
#include "mover/test/pair.h"

static void migrate_with(void **state, bool tcp, unsigned streams, enum compression compression,
			 unsigned writes)
{
	struct pair p;

	pair_init(&p, *state, tcp);
	if (tcp)
		use_tls(&p);
	p.send.streams = streams;
	p.send.compression = compression;
	p.send.max_downtime_ms = 20;
	p.send.throttle = true; /* a slow machine may need it */
	p.from.pages_a_turn = writes;
	pair_run(&p);
	assert_moved(&p);
	assert_true(json_integer_value(json_object_get(p.sent.report, "pages")) > 0);
	assert_true(json_integer_value(json_object_get(p.sent.report, "downtime_ns")) > 0);
	pair_done(&p);
}

static void test_moves(void **state)
{
	migrate_with(state, false, 1, COMPRESSION_NONE, 0);
	migrate_with(state, false, 3, COMPRESSION_NONE, 4);
	migrate_with(state, true, 2, COMPRESSION_NONE, 4);
	migrate_with(state, true, 1, COMPRESSION_LZ4, 4);
	migrate_with(state, false, 2, COMPRESSION_ZSTD, 4);
}

static void test_obstacles(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.to.vcpus = 3;
	pair_run(&p);
	assert_int_equal(p.send_rc, -EBUSY);
	assert_int_equal(json_array_size(p.sent.obstacles), 1);
	assert_non_null(strstr(p.send_err.text, "vcpus: 2 at the source, 3 at the target"));
	assert_int_equal(p.from.calls[FAKE_PAUSE] + p.from.calls[FAKE_START], 0);
	assert_stayed(&p);
	assert_int_equal(p.to.state, MACHINE_INCOMING); /* it can still be used */
	pair_done(&p);
}

static void test_dry_run(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.send.dry_run = true;
	pair_run(&p);
	assert_int_equal(p.send_rc, 0);
	assert_int_equal(json_array_size(p.sent.obstacles), 0);
	assert_int_equal(p.from.calls[FAKE_PAUSE] + p.from.calls[FAKE_START], 0);
	assert_int_equal(p.from.state, MACHINE_RUNNING);
	assert_int_equal(p.to.state, MACHINE_INCOMING);
	pair_done(&p);
}

/* A limit of the bandwidth is kept, whatever is sent how. */
static void test_bandwidth(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		const uint64_t rate = 20u << 20;
		uint64_t start = io_now_ns(), bytes;
		struct pair p;

		pair_init(&p, *state, i & 1);
		if (i & 2)
			use_tls(&p);
		p.send.bandwidth = rate;
		p.send.streams = 1 + 2 * i;
		pair_run(&p);
		assert_moved(&p);
		/* What is sent in the pause goes as it can. */
		bytes = (uint64_t)json_integer_value(json_object_get(
			json_array_get(json_object_get(p.sent.report, "rounds"), 0), "bytes"));
		assert_in_range(bytes, 3u << 20, UINT64_MAX);
		/* 10 ms of it may go at once. */
		assert_true((double)(io_now_ns() - start) / 1e9 + 0.011 > (double)bytes / rate);
		pair_done(&p);
	}
}

/* Another token, or TLS on one side only: both hear why, nothing changes. */
static void test_strangers(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct pair p;

		pair_init(&p, *state, false);
		p.receive.refused = note_refusal;
		p.receive.secret.tls = i & 1;
		p.send.secret.tls = i == 1 || i == 2;
		if (i < 2)
			p.send.secret.token[31] ^= 1;
		pair_run(&p);
		assert_stayed(&p);
		assert_non_null(strstr(p.send_err.text, i < 2 ? "same token" : "--no-tls"));
		assert_non_null(strstr(p.why, i < 2 ? "same token" : "--no-tls"));
		assert_int_equal(p.from.calls[FAKE_PAUSE] + p.from.calls[FAKE_START], 0);
		assert_int_equal(p.to.state, MACHINE_INCOMING);
		pair_done(&p);
	}
}

/* A VM that writes faster than it can be sent: refused, or throttled. */
static void test_convergence(void **state)
{
	for (unsigned throttle = 0; throttle < 2; throttle++) {
		struct pair p;

		pair_init(&p, *state, false);
		p.from.pages_a_turn = 3000;
		p.send.max_downtime_ms = 0;
		p.send.max_downtime_ms = 1;
		p.send.max_rounds = 4;
		p.send.throttle = throttle;
		pair_run(&p);
		if (p.send_rc == 0) /* a slow machine */
			assert_moved(&p);
		else
			assert_stayed(&p);
		assert_false(p.from.others_slower);
		pair_done(&p);
	}
}

static void test_switch_now(void **state)
{
	const _Atomic bool now = true;
	struct pair p;

	pair_init(&p, *state, false);
	p.from.pages_a_turn = 3000;
	p.send.max_downtime_ms = 1;
	p.send.switch_now = &now;
	pair_run(&p);
	assert_moved(&p);
	pair_done(&p);
}

/* The disks are written out before it begins, and again before the pause. */
static void test_flush(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	pair_run(&p);
	assert_moved(&p);
	assert_true(p.from.calls[FAKE_FLUSH] >= 2);
	assert_int_equal(p.from.calls[FAKE_SAMPLE], 1);
	assert_int_equal(p.to.calls[FAKE_SAMPLE], 1);
	pair_done(&p);
}

/* Killing either mover at each step; new ones take over where there is a record. */
static void test_kill(void **state)
{
	for (int step = 0; step < STEP_COUNT; step++) {
		for (int receiver = 0; receiver < 2; receiver++) {
			struct pair p;

			pair_init(&p, *state, step & 1);
			if (step & 1)
				use_tls(&p);
			p.from.pages_a_turn = 2;
			*(receiver ? &p.kill_receiver : &p.kill_sender) = step;
			pair_run(&p);
			if (p.world.running != 1)
				fail_msg("%s killed at %d: %d run; %s / %s",
					 receiver ? "target" : "source", step, p.world.running,
					 p.send_err.text, p.receive_err.text);
			if (p.to.state == MACHINE_RUNNING)
				assert_memory_equal(p.from.ram, p.to.ram, MEMORY);
			else
				assert_int_equal(p.from.state, MACHINE_RUNNING);
			pair_done(&p);
		}
	}
}

/* Cancelling at each step of the source. */
static void test_cancel(void **state)
{
	for (int step = 0; step < STEP_COUNT; step++) {
		struct pair p;

		pair_init(&p, *state, false);
		p.from.pages_a_turn = 2;
		p.cancel_at = step;
		pair_run(&p);
		if (step < STEP_GIVEN) {
			assert_stayed(&p);
			assert_int_equal(p.send_rc, -ECANCELED);
		} else {
			assert_moved(&p);
		}
		assert_int_equal(p.world.running, 1);
		pair_done(&p);
	}
}

/* Each call of either VMM refuses. */
static void test_refusals(void **state)
{
	for (int op = 0; op < FAKE_OPS; op++) {
		for (int target = 0; target < 2; target++) {
			struct pair p;

			pair_init(&p, *state, false);
			(target ? &p.to : &p.from)->fail[op] = -EIO;
			if (op == FAKE_STATE && target) {
				pair_done(&p); /* it does not begin to listen */
				continue;
			}
			pair_run(&p);
			if (p.world.running != 1)
				fail_msg("call %d of %s: %d run; %s / %s", op,
					 target ? "target" : "source", p.world.running,
					 p.send_err.text, p.receive_err.text);
			pair_done(&p);
		}
	}
}

/* The target's VMM refuses to resume: its answer lets the source take the VM back. */
static void test_resume_refused(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.to.fail[FAKE_RESUME] = -EIO;
	pair_run(&p);
	assert_stayed(&p);
	assert_int_equal(p.world.running, 1);
	pair_done(&p);
}

/* A VM that ran is not given back, whatever its VMM says to the next mover. */
static void test_resume_refused_later(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_receiver = STEP_COMMITTED;
	p.refuse_again = true;
	pair_run(&p);
	assert_int_equal(p.receive_rc, -ENOTRECOVERABLE);
	assert_int_equal(p.received.outcome, MIGRATE_MOVED);
	assert_int_equal(p.send_rc, 0);
	assert_int_equal(p.sent.outcome, MIGRATE_MOVED);
	assert_int_equal(p.to.state, MACHINE_RUNNING);
	assert_int_equal(p.to.calls[FAKE_STOP], 0);
	pair_done(&p);
}

/* The target's VMM dies: before it may have run the source has its VM, afterwards it is lost. */
static void test_target_dies(void **state)
{
	for (int step = STEP_CHECKED; step < STEP_COMMITTED; step++) {
		struct pair p;

		if (step == STEP_PAUSED || (step > STEP_PREPARED && step < STEP_GIVEN))
			continue;
		pair_init(&p, *state, false);
		p.die_receiver = step;
		pair_run(&p);
		if (step < STEP_GIVEN)
			assert_stayed(&p);
		else
			assert_int_equal(p.from.state, MACHINE_FAILED);
		pair_done(&p);
	}
}

/* After COMMIT nobody answers: paused, for as long as it takes; then exactly one runs. */
static void test_cut(void **state)
{
	struct pair p;
	pthread_t thread;

	pair_init(&p, *state, false);
	p.kill_receiver = STEP_GIVEN;
	p.receive.at = receiver_at;
	assert_int_equal(pthread_create(&thread, NULL, receiver_main, &p), 0);
	p.to.fail[FAKE_RESUME] = 0;
	run_sender(&p);
	pthread_join(thread, NULL);
	if (p.send_rc == -EINPROGRESS) {
		result_done(&p.sent);
		run_sender(&p);
	}
	assert_int_equal(p.world.running, 1);
	pair_done(&p);
}

/* Another mover of the target, with the record. */
static void *again_main(void *arg)
{
	struct pair *p = arg;

	p->receive_rc = migrate_receive_again(&p->receive, &p->received, &p->receive_err);
	return NULL;
}

/* Neither side goes on by itself while the other is away. */
static void test_undecided(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_sender = STEP_COMMITTED;
	p.kill_receiver = STEP_GIVEN;
	p.receive.cancel = NULL;
	pthread_create(&p.thread, NULL, receiver_main, &p);
	p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
	assert_int_equal(p.send_rc, MIGRATE_KILLED);
	fake_disconnect(&p.from);
	assert_int_equal(p.from.state, MACHINE_PAUSED);
	result_done(&p.sent);
	p.send_rc = migrate_send_again(&p.send, &p.sent, &p.send_err);
	pthread_join(p.thread, NULL);
	assert_moved(&p);
	pair_done(&p);
}

/* The source dies after COMMIT: the target does not wait for ever, and tells it when it comes. */
static void test_untold(void **state)
{
	struct error err = {{0}};
	struct note note;
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_sender = STEP_COMMITTED;
	p.receive.timeout_ms = 250;
	p.receive.return_ms = 0;
	pthread_create(&p.thread, NULL, receiver_main, &p);
	assert_int_equal(migrate_send(&p.send, &p.sent, &p.send_err), MIGRATE_KILLED);
	fake_disconnect(&p.from);
	pthread_join(p.thread, NULL);
	assert_int_equal(p.receive_rc, 0);
	assert_int_equal(p.received.outcome, MIGRATE_MOVED);
	assert_true(p.received.untold);
	assert_int_equal(p.to.state, MACHINE_RUNNING);
	assert_int_equal(note_read(p.to_note, &note, &err), 0);
	assert_int_equal(note.state, NOTE_RUNNING);
	result_done(&p.sent);
	result_done(&p.received);
	p.receive.timeout_ms = 2000;
	pthread_create(&p.thread, NULL, again_main, &p);
	p.send_rc = migrate_send_again(&p.send, &p.sent, &p.send_err);
	pthread_join(p.thread, NULL);
	assert_moved(&p);
	assert_false(p.received.untold);
	pair_done(&p);
}

/* A record is not used for another VM, alive or dead. */
static void test_other_vm(void **state)
{
	struct fake_vmm other;
	struct error err = {{0}};
	struct migrate_result result;
	struct pair p;

	pair_init(&p, *state, false);
	p.kill_sender = STEP_GIVEN;
	pthread_create(&p.thread, NULL, receiver_main, &p);
	p.send_rc = migrate_send(&p.send, &p.sent, &p.send_err);
	assert_int_equal(p.send_rc, MIGRATE_KILLED);
	fake_disconnect(&p.from);
	result_done(&p.sent);
	fake_init(&other, &(struct world){0}, MEMORY, false);
	p.send.vmm = &other.vmm;
	assert_int_equal(migrate_send_again(&p.send, &result, &err), -ESTALE);
	assert_non_null(strstr(err.text, "another VM"));
	assert_int_equal(other.state, MACHINE_RUNNING);
	other.dead = true;
	p.send.control = "/tmp/other";
	assert_int_equal(migrate_send_again(&p.send, &result, &err), -ESTALE);
	p.send.note = p.to_note;
	assert_int_equal(migrate_receive_again(&p.send, &result, &err), -ESTALE);
	p.send.note = p.from_note;
	fake_done(&other);
	p.send.vmm = &p.from.vmm;
	p.send.control = NULL;
	p.send_rc = migrate_send_again(&p.send, &p.sent, &p.send_err);
	pthread_join(p.thread, NULL);
	assert_moved(&p);
	pair_done(&p);
}

static void test_no_record(void **state)
{
	struct pair p;

	pair_init(&p, *state, false);
	p.send.note = "/nonexistent/note";
	pair_run(&p);
	assert_stayed(&p);
	pair_done(&p);
	pair_init(&p, *state, false);
	p.receive.note = "/nonexistent/note";
	pair_run(&p);
	assert_stayed(&p);
	pair_done(&p);
}

/* Somebody who does not know the token knocks, says garbage, or nothing. */
static void test_garbage(void **state)
{
	const _Atomic bool *const nobody[2] = {0};
	struct pair p;
	struct error err = {{0}};
	int fd[3];

	pair_init(&p, *state, false);
	p.receive.timeout_ms = 200;
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = address_connect(p.address, 1000, nobody, &err);
		assert_true(fd[i] >= 0);
	}
	assert_int_equal(write(fd[0], "GET / HTTP/1.1\r\nHost: wisp.example\r\n\r\n", 38), 38);
	close(fd[1]);
	pair_run(&p);
	assert_moved(&p);
	close(fd[0]);
	close(fd[2]);
	pair_done(&p);
}

/* Many strangers who say nothing, or a little, before and while the source comes. */
static void test_silence(void **state)
{
	for (unsigned tls = 0; tls < 2; tls++) {
		const _Atomic bool *const nobody[2] = {0};
		struct error err = {{0}};
		int fd[GREETER_ROOM + 4];
		struct pair p;

		pair_init(&p, *state, false);
		if (tls)
			use_tls(&p);
		p.receive.timeout_ms = 60000;
		p.receive.refused = note_refusal;
		for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
			fd[i] = address_connect(p.address, 1000, nobody, &err);
			assert_true(fd[i] >= 0);
			if (i & 1)
				assert_int_equal(write(fd[i], tls ? "\x16" : "W", 1), 1);
		}
		pair_run(&p);
		assert_moved(&p);
		assert_string_equal(p.why, "too many connect at once");
		for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
			close(fd[i]);
		pair_done(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_obstacles),
		cmocka_unit_test(test_dry_run),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_convergence),
		cmocka_unit_test(test_switch_now),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_resume_refused),
		cmocka_unit_test(test_resume_refused_later),
		cmocka_unit_test(test_target_dies),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_undecided),
		cmocka_unit_test(test_untold),
		cmocka_unit_test(test_other_vm),
		cmocka_unit_test(test_no_record),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_silence),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, pair_setup, scratch_teardown);
}
