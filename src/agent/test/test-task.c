/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks in the agent: whose they are, how many, what is kept, who is attached. Programs are fakes.
 */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/task.h"
#include "lib/error.h"
#include "task-fake.h"

#define WINDOW 8192

struct fixture {
	struct agent agent;
	struct session starter, session;
	struct error err;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_init(&f->agent.log, "test", -1, LOG_ERROR);
	f->agent.task_window = WINDOW;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	fake_session_done(&f->starter);
	fake_session_done(&f->session);
	while (f->agent.tasks) {
		if (f->agent.tasks->program)
			program_hangup(f->agent.tasks->program);
		task_destroy(f->agent.tasks);
	}
	free(f);
	return 0;
}

/* Takes request. */
static int start_as(struct fixture *f, uid_t caller, const char *id)
{
	json_t *request = json_pack("{s:s}", "id", id);
	int r;

	fake_session_done(&f->starter);
	r = task_start(&f->agent, &f->starter, caller, request, &f->err);
	json_decref(request);
	if (!r)
		fake_program_started(f->agent.programs);
	return r;
}

/* Takes request. */
static struct task *find_as(struct fixture *f, uid_t caller, json_t *request, int wanted)
{
	struct task *t = NULL;

	assert_int_equal(task_find(&f->agent, caller, request, &t, &f->err), wanted);
	json_decref(request);
	return t;
}

static int attach(struct fixture *f, struct session *s, json_t *request)
{
	struct task *t = find_as(f, 0, json_pack("{s:s}", "id", "a"), 0);
	int r = task_attach(t, s, request, &f->err);

	json_decref(request);
	return r;
}

static void ack(struct session *s, enum stream_number stream, uint64_t position)
{
	struct buffer b = {0};
	struct frame frame;

	frame_append_position(&b, stream, position);
	assert_int_equal(frame_parse(&b, &frame, NULL), 1);
	fake_session_frame(s, &frame);
	buffer_done(&b);
}

static void test_window(void **state)
{
	struct window w = {0};
	const uint8_t *p;
	uint8_t *to;

	assert_int_equal(window_init(&w, 4096), 0);
	for (uint64_t i = 0; i < 100000;) {
		size_t n = window_room(&w, &to), at = 0;

		assert_true(n || w.end - w.start == 4096);
		n = n > i % 777 ? i % 777 + 1 : n;
		for (size_t k = 0; k < n && n <= 4096; k++)
			to[k] = fake_byte(0, i + k);
		window_add(&w, n);
		i += n;
		for (uint64_t k = w.start; k < w.end; k++, at++) {
			assert_true(window_get(&w, k, &p) > 0);
			assert_int_equal(*p, fake_byte(0, k));
		}
		window_drop(&w, w.end - (i % 5 ? (w.end - w.start) / 3 : 0));
		if (!n)
			window_drop(&w, w.start + 1);
	}
	window_drop(&w, 5); /* the past */
	assert_true(w.start > 5);
	window_done(&w);
}

static void test_owners(void **state)
{
	struct fixture *f = *state;
	json_t *list;

	assert_int_equal(start_as(f, 0, "a"), 0);
	assert_int_equal(start_as(f, 5, "a"), 0);
	assert_int_equal(start_as(f, 5, "b"), 0);
	assert_int_equal(start_as(f, 5, "a"), -EEXIST);
	assert_non_null(strstr(f->err.text, "runs as process 1234"));
	assert_int_equal(find_as(f, 5, json_pack("{s:s}", "id", "a"), 0)->owner, 5);
	assert_int_equal(find_as(f, 0, json_pack("{s:s}", "id", "a"), 0)->owner, 0);
	assert_int_equal(find_as(f, 0, json_pack("{s:s,s:i}", "id", "a", "owner", 5), 0)->owner, 5);
	find_as(f, 5, json_pack("{s:s,s:i}", "id", "a", "owner", 0), -EACCES);
	find_as(f, 6, json_pack("{s:s}", "id", "a"), -ENOENT);
	find_as(f, 0, json_pack("{s:s}", "id", "b"), -ENOENT);
	find_as(f, 0, json_pack("{s:s,s:s}", "id", "a", "owner", "x"), -EINVAL);
	find_as(f, 0, json_object(), -EINVAL);
	list = task_list(&f->agent, 5);
	assert_int_equal(json_array_size(json_object_get(list, "tasks")), 2);
	json_decref(list);
	list = task_list(&f->agent, 0);
	assert_int_equal(json_array_size(json_object_get(list, "tasks")), 3);
	json_decref(list);
}

static void test_ids(void **state)
{
	static const char *const bad[] = {"",
					  "-a",
					  ".a",
					  "a b",
					  "a/b",
					  "ä",
					  "12345678901234567890123456789012345678901234567890"
					  "123456789012345"};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(start_as(f, 0, bad[i]), -EINVAL);
	assert_null(f->agent.tasks);
	assert_int_equal(start_as(f, 0, "0a.B_c-9"), 0);
}

static void test_how_many(void **state)
{
	struct fixture *f = *state;
	json_t *kill = json_pack("{s:b}", "kill", 1);
	char id[8];

	for (int i = 0; i < TASKS_MAX_OTHERS; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		assert_int_equal(start_as(f, 1000 + (uid_t)i, id), 0);
	}
	assert_int_equal(start_as(f, 1000, "more"), -ENOSPC);
	for (int i = TASKS_MAX_OTHERS; i < TASKS_MAX; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		assert_int_equal(start_as(f, 0, id), 0);
	}
	assert_int_equal(start_as(f, 0, "more"), -ENOSPC);
	assert_int_equal(task_remove(f->agent.tasks, NULL, &f->err), -EBUSY);
	assert_int_equal(task_remove(f->agent.tasks, kill, &f->err), 0);
	json_decref(kill);
	assert_int_equal(start_as(f, 0, "more"), 0);
}

/* An answer when it runs, and none of it left when it does not. */
static void test_start(void **state)
{
	struct fixture *f = *state;
	json_t *request = json_pack("{s:s,s:b}", "id", "a", "stdin", 0);

	assert_int_equal(task_start(&f->agent, &f->starter, 0, request, &f->err), 0);
	assert_false(f->starter.over);
	assert_true(f->agent.programs->in_ended);
	assert_int_equal(task_start(&f->agent, &f->session, 0, request, &f->err), -EEXIST);
	assert_non_null(strstr(f->err.text, "is being started"));
	fake_program_failed(f->agent.programs, -ENOENT);
	assert_true(f->starter.over);
	assert_int_equal(f->starter.code, -ENOENT);
	assert_null(f->agent.tasks);
	/* Whoever asked has gone: it is started all the same. */
	fake_session_done(&f->starter);
	assert_int_equal(task_start(&f->agent, &f->starter, 0, request, &f->err), 0);
	fake_session_done(&f->starter);
	fake_program_started(f->agent.programs);
	assert_true(f->agent.tasks->started);
	json_decref(request);
}

/* A full window stops the program; acknowledgements let it go on, nothing is lost. */
static void test_full(void **state)
{
	struct fixture *f = *state;
	struct task *t;

	assert_int_equal(start_as(f, 0, "a"), 0);
	assert_string_equal(json_string_value(json_object_get(f->starter.result, "state")),
			    "running");
	t = f->agent.tasks;
	fake_program_write(f->agent.programs, 0, 3 * WINDOW);
	fake_program_write(f->agent.programs, 1, 10);
	assert_int_equal(f->agent.programs->written[0], WINDOW);
	fake_program_exit(f->agent.programs, 3 << 8);
	assert_int_equal(attach(f, &f->session, NULL), 0);
	fake_session_drain(&f->session);
	assert_int_equal(f->session.next[STREAM_OUT], WINDOW);
	assert_int_equal(f->session.next[STREAM_ERR], 10);
	ack(&f->session, STREAM_OUT, 100);
	fake_session_drain(&f->session);
	assert_int_equal(f->session.next[STREAM_OUT], WINDOW + 100);
	ack(&f->session, STREAM_OUT, 50); /* goes back: says nothing */
	assert_int_equal(t->out[0].start, 100);
	while (!f->session.over) {
		ack(&f->session, STREAM_OUT, f->session.next[STREAM_OUT]);
		fake_session_drain(&f->session);
	}
	fake_session_drain(&f->session);
	assert_int_equal(f->session.next[STREAM_OUT], 3 * WINDOW);
	assert_true(f->session.ended[STREAM_OUT] && f->session.ended[STREAM_ERR]);
	assert_int_equal(f->session.exits, 1);
	/* Who comes back has the end again. */
	fake_session_done(&f->session);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stderr", 7)), 0);
	fake_session_drain(&f->session);
	assert_true(f->session.over && f->session.exits == 1 && !f->session.code);
	assert_int_equal(start_as(f, 0, "a"), -EEXIST);
	assert_non_null(strstr(f->err.text, "ended with exit code 3"));
}

static void test_positions(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(start_as(f, 0, "a"), 0);
	fake_program_write(f->agent.programs, 0, 1000);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stdout", 1001)), -ERANGE);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stderr", 1)), -ERANGE);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stdout", -1)), -EINVAL);
	assert_int_equal(attach(f, &f->session, json_pack("{s:s}", "stdout", "1")), -EINVAL);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stdout", 400)), 0);
	fake_session_drain(&f->session);
	assert_int_equal(f->session.next[STREAM_OUT], 1000);
	ack(&f->session, STREAM_OUT, 600);
	fake_session_done(&f->session);
	assert_int_equal(attach(f, &f->session, json_pack("{s:i}", "stdout", 599)), -ERANGE);
	assert_int_equal(attach(f, &f->session, NULL), 0);
	fake_session_drain(&f->session);
	assert_int_equal(f->session.next[STREAM_OUT], 1000);
	/* What was not sent cannot be safe. */
	ack(&f->session, STREAM_OUT, 1001);
	assert_int_equal(f->session.code, -EPROTO);
	fake_session_done(&f->session);
	assert_int_equal(attach(f, &f->session, NULL), 0);
	fake_session_drain(&f->session);
	ack(&f->session, STREAM_IN, 0);
	assert_int_equal(f->session.code, -EPROTO);
	assert_non_null(f->agent.tasks->program); /* none of which the program feels */
}

static void test_latest(void **state)
{
	struct fixture *f = *state;
	struct session second = {0};
	json_t *kill = json_pack("{s:b}", "kill", 1);

	assert_int_equal(start_as(f, 0, "a"), 0);
	fake_program_write(f->agent.programs, 1, 500);
	assert_int_equal(attach(f, &f->session, NULL), 0);
	assert_int_equal(attach(f, &second, NULL), 0);
	assert_int_equal(f->session.code, -ECANCELED);
	fake_program_write(f->agent.programs, 1, 500);
	fake_session_drain(&second);
	assert_int_equal(second.next[STREAM_ERR], 1000);
	assert_int_equal(task_remove(f->agent.tasks, kill, &f->err), 0);
	assert_int_equal(second.code, -ECANCELED);
	assert_null(f->agent.tasks);
	fake_session_done(&second);
	json_decref(kill);
}

static void test_signal(void **state)
{
	struct fixture *f = *state;
	json_t *request = json_pack("{s:i}", "signal", 15);
	json_t *none = json_pack("{s:i}", "signal", 65);

	assert_int_equal(start_as(f, 0, "a"), 0);
	assert_int_equal(task_signal(f->agent.tasks, request, &f->err), 0);
	assert_int_equal(task_signal(f->agent.tasks, none, &f->err), -EINVAL);
	fake_program_exit(f->agent.programs, SIGTERM);
	assert_int_equal(task_signal(f->agent.tasks, request, &f->err), -ESRCH);
	assert_int_equal(start_as(f, 0, "a"), -EEXIST);
	assert_non_null(strstr(f->err.text, "ended by signal 15"));
	assert_int_equal(task_remove(f->agent.tasks, NULL, &f->err), 0);
	json_decref(request);
	json_decref(none);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_window),    TEST(test_owners), TEST(test_ids),
		TEST(test_how_many),  TEST(test_start),	 TEST(test_full),
		TEST(test_positions), TEST(test_latest), TEST(test_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
