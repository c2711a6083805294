/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a checkpoint: words in and out of order, ends, and nobody who tells them. */

#include "mover/test/scratch.h"

#include <errno.h>
#include <string.h>

#include "mover/steps.h"
#include "mover/work.h"

struct talk {
	struct steps steps;
	_Atomic bool cancel;
	int tell, hear; /* our ends */
	int in, out;
};

static void begin_with(struct talk *t, bool stays, unsigned progress_ms)
{
	int to[2], from[2];

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	*t = (struct talk){.tell = to[1], .in = to[0], .hear = from[0], .out = from[1]};
	steps_init(&t->steps, t->in, t->out, stays, &t->cancel);
	if (progress_ms)
		t->steps.progress_ms = progress_ms;
	ok(steps_start(&t->steps, &err));
}

static void begin(struct talk *t, bool stays)
{
	begin_with(t, stays, 0);
}

static void tell(const struct talk *t, const char *line)
{
	assert_int_equal(io_write_full(t->tell, line, strlen(line)), 0);
}

static void close_all(struct talk *t)
{
	if (t->tell >= 0)
		close(t->tell);
	close(t->in);
	close(t->hear);
	close(t->out);
}

/* It ends with that reason, and says so in its last line. */
static void end_failed(struct talk *t, int code, const char *words)
{
	struct error err = {"cancelled"};
	struct jsonline line = {0};
	json_t *said = NULL, *last = NULL;

	assert_int_equal(steps_end(&t->steps, -ECANCELED, NULL, &err), code);
	assert_non_null(strstr(err.text, words));
	close(t->out);
	t->out = -1;
	while (jsonline_read(&line, t->hear, 4096) == 1 && jsonline_take(&line, &said, NULL) == 0) {
		json_decref(last);
		last = said;
	}
	assert_string_equal(json_string_value(json_object_get(last, "step")), "failed");
	assert_int_equal(json_integer_value(json_object_get(last, "errno")), -code);
	assert_string_equal(json_string_value(json_object_get(last, "error")), err.text);
	json_decref(last);
	jsonline_done(&line);
	close_all(t);
}

static void test_in_order(void **state)
{
	char text[512] = "";
	struct talk t;
	json_t *report = json_pack("{s:i, s:s}", "epoch", 3, "digest", "sha256:00");

	(void)state;
	begin(&t, false);
	ok(steps_say(&t.steps, "ready", NULL, &err));
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, 10, NULL), 0);
	tell(&t, "{\"step\": \"cut\", \"more\": 1}\n");
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, -1, NULL), 1);
	ok(steps_ask(&t.steps, "cut", json_pack("{s:i}", "at", 7), STEPS_RESUME, &err));
	tell(&t, "{\"step\": \"res");
	assert_int_equal(steps_await(&t.steps, STEPS_RESUME, 10, NULL), 0);
	tell(&t, "ume\"}\n");
	assert_int_equal(steps_await(&t.steps, STEPS_RESUME, -1, NULL), 1);
	ok(steps_ask(&t.steps, "written", NULL, STEPS_COMMIT, &err));
	/* What comes after "commit" is too late. */
	tell(&t, "{\"step\": \"commit\"}\n{\"step\": \"abort\"}\n");
	assert_int_equal(steps_await(&t.steps, STEPS_COMMIT, -1, NULL), 1);
	assert_int_equal(steps_end(&t.steps, 0, report, NULL), 0);
	assert_false(t.cancel);
	assert_true(read(t.hear, text, sizeof(text) - 1) > 0);
	assert_string_equal(text, "{\"step\":\"ready\"}\n{\"at\":7,\"step\":\"cut\"}\n"
				  "{\"step\":\"written\"}\n{\"epoch\":3,\"digest\":\"sha256:00\","
				  "\"report\":{\"epoch\":3,\"digest\":\"sha256:00\"},"
				  "\"step\":\"committed\"}\n");
	json_decref(report);
	close_all(&t);
}

/* While something gets done it is said, and not while nothing does. */
static void test_progress(void **state)
{
	struct jsonline line = {0};
	struct talk t;
	struct progress progress = {.pulse = &t.steps.pulse};
	json_t *said = NULL;

	(void)state;
	begin_with(&t, false, 50);
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, 300, NULL), 0);
	ok(work_beat(&progress, &err));
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, 300, NULL), 0);
	assert_int_equal(jsonline_read(&line, t.hear, 4096), 1);
	ok(jsonline_take(&line, &said, NULL));
	assert_string_equal(json_string_value(json_object_get(said, "step")), "progress");
	assert_int_equal(jsonline_take(&line, &said, NULL), -EAGAIN);
	jsonline_done(&line);
	tell(&t, "{\"step\": \"abort\"}\n");
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, -1, NULL), -ECANCELED);
	end_failed(&t, -ECANCELED, "told to abort");
	json_decref(said);
}

static void give_up_with(const char *line, int code, const char *words)
{
	struct talk t;
	struct error err;

	begin(&t, false);
	tell(&t, line);
	assert_int_equal(steps_await(&t.steps, STEPS_COMMIT, -1, &err), code);
	assert_true(t.cancel);
	end_failed(&t, code, words);
}

static void test_given_up(void **state)
{
	char longest[5000];

	(void)state;
	give_up_with("{\"step\": \"abort\"}\n", -ECANCELED, "told to abort");
	give_up_with("{\"step\": \"resume\"}\n", -EPROTO, "\"resume\" is not what can be told");
	give_up_with("{\"step\": \"commit\"}\n", -EPROTO, "\"commit\" is not what can be told");
	give_up_with("{\"step\": \"cut\"}\n{\"step\": \"cut\"}\n", -EPROTO, "\"cut\" is not");
	give_up_with("{\"step\": \"\\u0000\"}\n", -EBADMSG, "not JSON");
	give_up_with("{\"step\": 1}\n", -EBADMSG, "no \"step\"");
	give_up_with("{}\n", -EBADMSG, "no \"step\"");
	give_up_with("[]\n", -EBADMSG, "not a JSON object");
	give_up_with("cut\n", -EBADMSG, "not JSON");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	give_up_with(longest, -EMSGSIZE, "cannot read the steps");
}

static void test_ends(void **state)
{
	struct talk t;

	(void)state;
	begin(&t, false);
	tell(&t, "{\"step\": \"cut\"}\n");
	close(t.tell);
	t.tell = -1;
	assert_int_equal(steps_await(&t.steps, STEPS_RESUME, -1, NULL), -ECANCELED);
	end_failed(&t, -ECANCELED, "has gone");
	/* Somebody else cancels: a signal. */
	begin(&t, false);
	t.cancel = true;
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, -1, NULL), -ECANCELED);
	end_failed(&t, -ECANCELED, "cancelled");
	/* An operation that fails by itself keeps its own reason. */
	begin(&t, false);
	{
		struct error err = {"no room"};

		assert_int_equal(steps_end(&t.steps, -ENOSPC, NULL, &err), -ENOSPC);
		assert_string_equal(err.text, "no room");
	}
	close_all(&t);
}

/* Nobody says "resume" when the VM is to stay, and nobody anything when there is nobody. */
static void test_without(void **state)
{
	struct talk t;

	(void)state;
	begin(&t, true);
	ok(steps_ask(&t.steps, "cut", NULL, STEPS_RESUME, &err));
	assert_int_equal(steps_await(&t.steps, STEPS_RESUME, -1, NULL), 1);
	assert_int_equal(t.steps.deadline, 0);
	tell(&t, "{\"step\": \"resume\"}\n");
	assert_int_equal(steps_await(&t.steps, STEPS_CUT, -1, NULL), -EPROTO);
	end_failed(&t, -EPROTO, "\"resume\" is not");
	for (enum steps_word word = STEPS_CUT; word < STEPS_WORDS; word++) {
		ok(steps_ask(NULL, "any", json_object(), word, &err));
		assert_int_equal(steps_await(NULL, word, -1, NULL), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order), cmocka_unit_test(test_progress),
		cmocka_unit_test(test_given_up), cmocka_unit_test(test_ends),
		cmocka_unit_test(test_without),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
