/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that come later: to whom, how many, and after their askers. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/daemon.h"

struct heard {
	unsigned n;
	json_int_t id;
	int code;
	bool there;
	char reason[64], session[16];
	json_int_t value;
};

static void hear(const struct reply *reply, int code, const char *reason, json_t *value)
{
	struct heard *h = reply->to;

	h->n++;
	h->id = reply->id;
	h->code = code;
	h->there = reply->asker;
	h->value = json_integer_value(value);
	snprintf(h->reason, sizeof(h->reason), "%s", reason);
	snprintf(h->session, sizeof(h->session), "%.15s", reply->who.session);
}

static struct reply *due(struct daemon *d, struct asker *asker, struct heard *h, json_int_t id)
{
	struct reply model = {.asker = asker, .fn = hear, .to = h, .id = id}, *reply = NULL;
	struct error err;

	if (reply_create(d, &model, &reply, &err))
		fail_msg("%s", err.text);
	return reply;
}

static void test_order(void **state)
{
	struct asker asker = {.uid = 7, .session = "first"};
	struct reply *a, *b, *c;
	struct daemon d = {0};
	struct heard h = {0};
	struct error err;
	json_t *value = json_integer(5);

	a = due(&d, &asker, &h, 1);
	b = due(&d, &asker, &h, 2);
	c = due(&d, &asker, &h, 3);
	strcpy(asker.session, "second");
	reply_send(b, 0, value, NULL);
	assert_int_equal(h.id, 2);
	assert_int_equal(h.value, 5);
	assert_true(h.there);
	/* What it was when it asked is what counts. */
	assert_string_equal(h.session, "first");
	reply_send(a, error_set(&err, -EBUSY, "not now"), NULL, &err);
	assert_int_equal(h.code, -EBUSY);
	assert_string_equal(h.reason, "not now");
	reply_send(c, 0, NULL, NULL);
	assert_int_equal(h.n, 3);
	assert_null(d.replies);
	json_decref(value);
}

static void test_gone(void **state)
{
	struct asker *asker = calloc(1, sizeof(*asker)), other = {.uid = 8};
	struct heard h = {0}, more = {0};
	struct reply *a, *b;
	struct daemon d = {0};

	asker->uid = 7;
	a = due(&d, asker, &h, 1);
	b = due(&d, &other, &more, 1);
	replies_forget(&d, asker);
	free(asker);
	assert_int_equal(a->who.uid, 7);
	assert_null(a->conn);
	reply_send(a, 0, NULL, NULL);
	assert_int_equal(h.n, 1);
	assert_false(h.there);
	reply_send(b, 0, NULL, NULL);
	assert_true(more.there);
	assert_null(d.replies);
}

static void test_limits(void **state)
{
	struct asker asker = {.uid = 7}, other = {.uid = 7};
	struct reply *all[REPLIES_MAX], *one, model = {.asker = &asker, .fn = hear};
	struct heard h = {0};
	struct daemon d = {0};
	struct error err;

	model.to = &h;
	for (unsigned i = 0; i < REPLIES_MAX; i++)
		all[i] = due(&d, &asker, &h, i + 1);
	model.id = 5;
	assert_int_equal(reply_create(&d, &model, &one, &err), -EPROTO);
	model.id = REPLIES_MAX + 1;
	assert_int_equal(reply_create(&d, &model, &one, &err), -EBUSY);
	one = due(&d, &other, &h, 1);
	reply_send(one, 0, NULL, NULL);
	reply_send(all[4], 0, NULL, NULL);
	all[4] = due(&d, &asker, &h, 5);
	for (unsigned i = 0; i < REPLIES_MAX; i++)
		reply_send(all[i], 0, NULL, NULL);
	assert_int_equal(h.n, REPLIES_MAX + 2);
	assert_null(d.replies);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
