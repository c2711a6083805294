/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TEST_PAIR_H
#define WISP_MOVER_TEST_PAIR_H

/* Two stand-ins of a VMM with a mover each, for tests of migrations. */

#include "mover/test/scratch.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include "mover/address.h"
#include "mover/migrate.h"
#include "mover/test/fake-vmm.h"

#define MEMORY ((9u << 20) + 3 * PAGE_BYTES)
#define PATIENCE_MS 1000 /* with a peer that is to come */
#define SILENCE_MS 5000	 /* a busy machine does not pass for a peer that is gone */

/*
 * A folder for the records, in memory where that can be had: a disk that others write to may take
 * many seconds to sync one, which is more than the patience of a test.
 */
static inline int pair_setup(void **state)
{
	return scratch_make(state, access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
}

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
	_Atomic bool cancel, cancel_target;
	int cancel_at, cancel_target_at; /* step, or -1 */
	_Atomic int to_step;
	char why[256]; /* somebody was sent away */
	_Atomic bool refused;
	bool refuse_again; /* the target's VMM does not resume for a second mover */
	pthread_t thread;
};

static inline void note_refusal(void *arg, const char *who, const char *why)
{
	struct pair *p = arg;

	assert_string_equal(who, "this host");
	snprintf(p->why, sizeof(p->why), "%s", why);
	p->refused = true;
}

static inline int sender_at(void *arg, const struct migrate_progress *now)
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

static inline int receiver_at(void *arg, const struct migrate_progress *now)
{
	struct pair *p = arg;

	p->to_step = (int)now->step;
	if ((int)now->step == p->cancel_target_at)
		p->cancel_target = true;
	if ((int)now->step == p->die_receiver)
		fake_die(&p->to);
	if ((int)now->step != p->kill_receiver)
		return 0;
	p->kill_receiver = -1;
	return 1;
}

static inline void pair_init(struct pair *p, const char *dir, bool tcp)
{
	struct error err = {{0}};
	static unsigned number;

	*p = (struct pair){.kill_sender = -1,
			   .kill_receiver = -1,
			   .die_sender = -1,
			   .die_receiver = -1,
			   .cancel_at = -1,
			   .cancel_target_at = -1};
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
					   .timeout_ms = SILENCE_MS,
					   .load_ms = SILENCE_MS,
					   .return_ms = PATIENCE_MS * 3 / 5,
					   .cancel = &p->cancel,
					   .at = sender_at,
					   .arg = p};
	p->receive = (struct migrate_options){.vmm = &p->to.vmm,
					      .note = p->to_note,
					      .secret.token = "secret",
					      .timeout_ms = SILENCE_MS,
					      .return_ms = PATIENCE_MS,
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

static inline void result_done(struct migrate_result *r)
{
	json_decref(r->obstacles);
	json_decref(r->report);
	*r = (struct migrate_result){.outcome = r->outcome};
}

static inline void pair_done(struct pair *p)
{
	assert_false(p->world.twice);
	close(p->receive.listen);
	result_done(&p->sent);
	result_done(&p->received);
	fake_done(&p->to); /* it may look at the memory of the other */
	fake_done(&p->from);
}

/* The first mover of the target. */
static inline void *receiver_once(void *arg)
{
	struct pair *p = arg;

	p->receive_rc = migrate_receive(&p->receive, &p->received, &p->receive_err);
	return NULL;
}

/* A mover that is killed loses its connections; a new one with the record goes on. */
static inline void *receiver_main(void *arg)
{
	struct pair *p = arg;

	receiver_once(p);
	if (p->receive_rc == MIGRATE_KILLED) {
		fake_disconnect(&p->to);
		result_done(&p->received);
		if (p->refuse_again)
			p->to.fail[FAKE_RESUME] = -EIO;
		if (access(p->to_note, F_OK) == 0)
			p->receive_rc =
				migrate_receive_again(&p->receive, &p->received, &p->receive_err);
	}
	return NULL;
}

static inline void run_sender(struct pair *p)
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

static inline void pair_run(struct pair *p)
{
	p->receive.cancel = &p->cancel_target;
	assert_int_equal(pthread_create(&p->thread, NULL, receiver_main, p), 0);
	run_sender(p);
	for (unsigned i = 0; p->receive.refused && !p->refused && i < 500; i++)
		usleep(10000);
	/* One that waits for a source that will not come any more is sent home. */
	if (p->to_step < STEP_CHECKED)
		p->cancel_target = true;
	pthread_join(p->thread, NULL);
	p->receive.cancel = NULL;
}

static inline void assert_moved(struct pair *p)
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

static inline void assert_stayed(struct pair *p)
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

static inline void use_tls(struct pair *p)
{
	p->send.secret.tls = p->receive.secret.tls = true;
}

#endif
