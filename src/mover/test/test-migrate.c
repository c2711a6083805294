/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations between two stand-ins of a VMM: contents, and that exactly one runs whoever dies. */

#include "mover/address.h"
#include "mover/test/scratch.h"

#include <signal.h>
#include <sys/socket.h>
#include <netinet/in.h>

#include "mover/migrate.h"
#include "mover/test/fake-vmm.h"

#define MEMORY ((9u << 20) + 3 * PAGE_BYTES)

/* One migration: two VMMs, two movers; each of them may be killed at a step. */
struct pair {
	struct world world;
	struct fake_vmm from, to;
	struct migrate_options send, receive;
	struct migrate_result sent, received;
	struct error send_err, receive_err;
	int send_rc, receive_rc;
	char address[256], from_note[256], to_note[256];
	int kill_sender, kill_receiver; /* step, or -1 */
	int die_sender, die_receiver;	/* the VMM dies at that step, or -1 */
	_Atomic bool cancel;
	int cancel_at;
	_Atomic int to_step;
	char why[256]; /* somebody was sent away */
	_Atomic bool refused;
	pthread_t thread;
};

static void note_refusal(void *arg, const char *who, const char *why)
{
	struct pair *p = arg;

	assert_string_equal(who, "this host");
	snprintf(p->why, sizeof(p->why), "%s", why);
	p->refused = true;
}

static int sender_at(void *arg, const struct migrate_progress *now)
{
	struct pair *p = arg;

	if ((int)now->step == p->cancel_at)
		p->cancel = true;
	if ((int)now->step == p->die_sender)
		fake_die(&p->from);
	if ((int)now->step != p->kill_sender)
		return 0;
	p->kill_sender = -1;
	return 1;
}

static int receiver_at(void *arg, const struct migrate_progress *now)
{
	struct pair *p = arg;

	p->to_step = (int)now->step;
	if ((int)now->step == p->die_receiver)
		fake_die(&p->to);
	if ((int)now->step != p->kill_receiver)
		return 0;
	p->kill_receiver = -1;
	return 1;
}

static void pair_init(struct pair *p, const char *dir, bool tcp)
{
	struct error err = {{0}};
	static unsigned number;

	*p = (struct pair){.kill_sender = -1,
			   .kill_receiver = -1,
			   .die_sender = -1,
			   .die_receiver = -1,
			   .cancel_at = -1};
	fake_init(&p->from, &p->world, MEMORY, false);
	fake_init(&p->to, &p->world, MEMORY, true);
	snprintf(p->address, sizeof(p->address), tcp ? "tcp:127.0.0.1:0" : "unix:%s/%u", dir,
		 ++number);
	snprintf(p->from_note, sizeof(p->from_note), "%s/from-%u", dir, number);
	snprintf(p->to_note, sizeof(p->to_note), "%s/to-%u", dir, number);
	p->send = (struct migrate_options){.vmm = &p->from.vmm,
					   .note = p->from_note,
					   .address = p->address,
					   .secret.token = "secret",
					   .timeout_ms = 500,
					   .load_ms = 500,
					   .return_ms = 300,
					   .cancel = &p->cancel,
					   .at = sender_at,
					   .arg = p};
	p->receive = (struct migrate_options){.vmm = &p->to.vmm,
					      .note = p->to_note,
					      .secret.token = "secret",
					      .timeout_ms = 500,
					      .return_ms = 500,
					      .at = receiver_at,
					      .arg = p};
	p->receive.listen = address_listen(p->address, &err);
	if (p->receive.listen < 0)
		fail_msg("%s", err.text);
	if (tcp) {
		struct sockaddr_in name;
		socklen_t n = sizeof(name);

		assert_int_equal(getsockname(p->receive.listen, (struct sockaddr *)&name, &n), 0);
		snprintf(p->address, sizeof(p->address), "tcp:127.0.0.1:%u", ntohs(name.sin_port));
	}
}

static void result_done(struct migrate_result *r)
{
	json_decref(r->obstacles);
	json_decref(r->report);
	*r = (struct migrate_result){.outcome = r->outcome};
}

static void pair_done(struct pair *p)
{
	assert_false(p->world.twice);
	close(p->receive.listen);
	result_done(&p->sent);
	result_done(&p->received);
	fake_done(&p->from);
	fake_done(&p->to);
}

/* A mover that is killed loses its connections; a new one with the record goes on. */
static void *receiver_main(void *arg)
{
	struct pair *p = arg;

	p->receive_rc = migrate_receive(&p->receive, &p->received, &p->receive_err);
	if (p->receive_rc == MIGRATE_KILLED) {
		fake_disconnect(&p->to);
		result_done(&p->received);
		if (access(p->to_note, F_OK) == 0)
			p->receive_rc =
				migrate_receive_again(&p->receive, &p->received, &p->receive_err);
	}
	return NULL;
}

static void run_sender(struct pair *p)
{
	p->send_rc = migrate_send(&p->send, &p->sent, &p->send_err);
	if (p->send_rc != MIGRATE_KILLED)
		return;
	fake_disconnect(&p->from);
	if (access(p->from_note, F_OK) == 0) {
		result_done(&p->sent);
		p->send_rc = migrate_send_again(&p->send, &p->sent, &p->send_err);
	}
}

static void pair_run(struct pair *p)
{
	_Atomic bool done = false;

	p->receive.cancel = &done;
	assert_int_equal(pthread_create(&p->thread, NULL, receiver_main, p), 0);
	run_sender(p);
	for (unsigned i = 0; p->receive.refused && !p->refused && i < 500; i++)
		usleep(10000);
	/* One that waits for a source that will not come any more is sent home. */
	if (p->to_step < STEP_CHECKED)
		done = true;
	pthread_join(p->thread, NULL);
	p->receive.cancel = NULL;
}

static void assert_moved(struct pair *p)
{
	if (p->send_rc || p->receive_rc)
		fail_msg("source %d: %s, target %d: %s", p->send_rc, p->send_err.text,
			 p->receive_rc, p->receive_err.text);
	assert_int_equal(p->sent.outcome, MIGRATE_MOVED);
	assert_int_equal(p->received.outcome, MIGRATE_MOVED);
	assert_int_equal(p->to.state, MACHINE_RUNNING);
	assert_true(p->from.dead);
	assert_memory_equal(p->from.ram, p->to.ram, MEMORY);
}

static void assert_stayed(struct pair *p)
{
	assert_true(p->send_rc < 0);
	assert_int_equal(p->sent.outcome, MIGRATE_HERE);
	if (p->from.state != MACHINE_RUNNING)
		fail_msg("state %d: %s", p->from.state, p->send_err.text);
	assert_null(p->from.bitmap);
	assert_int_equal(p->from.percent, 0);
	assert_int_not_equal(p->to.state, MACHINE_RUNNING);
	assert_int_not_equal(access(p->from_note, F_OK), 0);
}

static void use_tls(struct pair *p)
{
	p->send.secret.tls = p->receive.secret.tls = true;
}

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
	struct pair p;
	struct error err = {{0}};
	int fd[3];

	pair_init(&p, *state, false);
	p.receive.timeout_ms = 200;
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = address_connect(p.address, 1000, &err);
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
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_resume_refused),
		cmocka_unit_test(test_target_dies),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_undecided),
		cmocka_unit_test(test_other_vm),
		cmocka_unit_test(test_no_record),
		cmocka_unit_test(test_garbage),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
