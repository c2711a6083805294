/* SPDX-License-Identifier: Apache-2.0 */
/* Records of usage, of daemons and VMs that go on, begin anew and are lost. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/account.h"
#include "node/store.h"
#include "node/test/made.h"

static const struct account_vm vm_a = {.cluster = "lu",
				       .vm = "a",
				       .user = 1000,
				       .cpus = 4,
				       .cores = 2,
				       .devices = 1,
				       .memory = 1 << 30};
static const struct account_vm vm_b = {
	.cluster = "is", .vm = "b", .user = 1001, .cpus = 1, .memory = 1 << 20};

static struct store *open_store(void **state)
{
	CLEANUP_FREE char *path = io_format("%s/node.db", (char *)*state);
	struct store *s = NULL;

	assert_int_equal(store_open(path, &s, NULL), 0);
	return s;
}

static json_t *list(struct store *s, struct account_query query, unsigned n)
{
	json_t *records = NULL;
	struct error err = {0};

	if (account_list(s, &query, &records, &err))
		fail_msg("%s", err.text);
	assert_int_equal(json_array_size(records), n);
	return records;
}

static void expect(const json_t *records, unsigned i, const char *key, json_int_t value)
{
	const json_t *member = json_object_get(json_array_get(records, i), key);

	assert_non_null(member);
	assert_int_equal((json_int_t)json_number_value(member), value);
}

static void test_life(void **state)
{
	struct store *s = open_store(state);
	struct account_use use = {.cpu_us = 5000000, .exits = 10, .bytes = 100, .peak_memory = 7};
	int64_t id = account_begin(s, &vm_a, 1000, NULL);
	json_t *records;

	assert_true(id > 0);
	assert_int_equal(account_update(s, id, &use, 1060, NULL), 0);
	/* Its VMM began anew: it counts on. */
	use = (struct account_use){.cpu_us = 6000000, .exits = 4, .bytes = 10, .peak_memory = 5};
	assert_int_equal(account_update(s, id, &use, 1120, NULL), 0);
	use = (struct account_use){.cpu_us = 7000000, .exits = 6, .bytes = 11, .peak_memory = 9};
	assert_int_equal(account_update(s, id, &use, 1180, NULL), 0);
	use.exits = 1;
	assert_int_equal(account_update(s, id, &use, 1180, NULL), 0);
	/* What is not known is as it was, and what comes next is no new beginning. */
	use = (struct account_use){
		.cpu_us = ACCOUNT_UNKNOWN, .exits = ACCOUNT_UNKNOWN, .bytes = ACCOUNT_UNKNOWN};
	assert_int_equal(account_update(s, id, &use, 1190, NULL), 0);
	use = (struct account_use){.cpu_us = 7500000, .exits = 2, .bytes = ACCOUNT_UNKNOWN};
	assert_int_equal(account_update(s, id, &use, 1195, NULL), 0);
	assert_true(account_is_open(s, "lu", "a"));
	assert_int_equal(account_close(s, "lu", "a", "powered off", 1200, NULL), 0);
	assert_false(account_is_open(s, "lu", "a"));
	assert_int_equal(account_close(s, "lu", NULL, "again", 1300, NULL), 0);
	assert_int_equal(account_update(s, id, &use, 1300, NULL), -ENOENT);
	records = list(s, (struct account_query){.user = -1}, 1);
	expect(records, 0, "exits", 10 + 6 + 2);
	expect(records, 0, "bytes", 100 + 11);
	expect(records, 0, "cpu_seconds", 7);
	expect(records, 0, "peak_memory", 9);
	expect(records, 0, "seconds", 200);
	expect(records, 0, "core_seconds", 400);
	expect(records, 0, "ended", 1200);
	expect(records, 0, "memory", 1 << 30);
	json_decref(records);
	store_close(s);
}

static void run(struct store *s, const char *sql)
{
	struct error err = {0};

	if (store_run(s, &err, sql, ""))
		fail_msg("%s", err.text);
}

/* Which cores and devices it had is known when others have them. */
static void test_held(void **state)
{
	struct store *s = open_store(state);
	json_t *records, *held, *wanted;

	run(s, "INSERT INTO cluster (id, user, state, since) VALUES ('lu', 1000, 'running', 1)");
	run(s, "INSERT INTO vm (id, cluster, name, since, cpus, dedicated) VALUES "
	       "(7, 'lu', 'a', 1, 4, 1), (8, 'lu', 'b', 1, 1, 1)");
	run(s, "INSERT INTO cpu VALUES (5, 7), (4, 7), (9, 8)");
	run(s,
	    "INSERT INTO memory VALUES (7, 0, 4096, 1000), (7, 0, 2097152, 24), (7, 1, 4096, 5)");
	run(s, "INSERT INTO device VALUES ('0000:3b:00.1', 7)");
	assert_true(account_begin(s, &vm_a, 1000, NULL) > 0);
	assert_true(account_begin(s, &vm_b, 1000, NULL) > 0);
	run(s, "DELETE FROM cluster");
	records = list(s, (struct account_query){.user = -1}, 2);
	held = json_object_get(json_array_get(records, 0), "held");
	wanted = json_pack("{s:[i, i], s:{s:i, s:i}, s:[s]}", "cpus", 4, 5, "memory", "0", 1024,
			   "1", 5, "devices", "0000:3b:00.1");
	assert_true(json_equal(held, wanted));
	assert_true(json_is_null(json_object_get(json_array_get(records, 1), "held")));
	json_decref(wanted);
	json_decref(records);
	store_close(s);
}

static void test_query(void **state)
{
	struct store *s = open_store(state);
	json_t *records;

	account_begin(s, &vm_a, 1000, NULL);
	account_close(s, "lu", NULL, "x", 1100, NULL);
	account_begin(s, &vm_b, 1050, NULL);
	account_close(s, "is", "b", "x", 1200, NULL);
	account_begin(s, &vm_b, 1300, NULL);
	records = list(s, (struct account_query){.user = -1, .from = 1080, .to = 1150}, 2);
	expect(records, 0, "seconds", 20);
	expect(records, 1, "seconds", 70);
	json_decref(records);
	json_decref(list(s, (struct account_query){.user = 1001}, 2));
	json_decref(list(s, (struct account_query){.user = -1, .cluster = "lu"}, 1));
	json_decref(list(s, (struct account_query){.user = 1000, .cluster = "is"}, 0));
	json_decref(list(s, (struct account_query){.user = -1, .from = 2000}, 0));
	records = list(s, (struct account_query){.user = -1, .from = 1250}, 1);
	assert_true(json_is_null(json_object_get(json_array_get(records, 0), "ended")));
	json_decref(records);
	store_close(s);
}

/* The daemon was killed: what still runs goes on, what does not ended when it was seen last. */
static void test_recover(void **state)
{
	struct store *s = open_store(state);
	struct account_use use = {.cpu_us = 1};
	int64_t a = account_begin(s, &vm_a, 1000, NULL), b = account_begin(s, &vm_b, 1000, NULL);
	json_t *records;

	assert_int_equal(store_run(s, NULL,
				   "INSERT INTO cluster (id, user, state, since, until) VALUES "
				   "('lu', 1000, 'running', 1, NULL)",
				   ""),
			 0);
	assert_int_equal(store_run(s, NULL,
				   "INSERT INTO vm (cluster, name, since, cpus, dedicated) "
				   "VALUES ('lu', 'a', 1, 4, 1)",
				   ""),
			 0);
	assert_int_equal(account_update(s, b, &use, 1060, NULL), 0);
	store_close(s);
	s = open_store(state);
	assert_int_equal(account_recover(s, NULL), 1);
	assert_int_equal(account_recover(s, NULL), 0);
	assert_int_equal(account_update(s, a, &use, 1300, NULL), 0);
	records = list(s, (struct account_query){.user = -1}, 2);
	expect(records, 0, "seconds", 300);
	expect(records, 1, "ended", 1060);
	assert_string_equal(json_string_value(json_object_get(json_array_get(records, 1), "how")),
			    "lost");
	json_decref(records);
	store_close(s);
}

static void test_stats(void **state)
{
	json_t *stats = json_loads(
		"{\"vcpu_exits\": [{\"pio\": 1, \"mmio\": 2, \"interrupted\": 3, \"other\": 4, "
		"\"faults\": 99},"
		"{\"pio\": 10}], \"devices\": {\"disk0\": {\"reads\": 7, \"bytes-read\": 512, "
		"\"bytes-written\": 1024, \"queues\": [{\"kicks\": 3}]}, \"serial\": "
		"{\"bytes_out\": 5},"
		"\"net0\": {\"vhost\": true}, \"odd\": 3}}",
		0, NULL);
	struct account_use use = {0};

	assert_non_null(stats);
	account_read(stats, &use);
	assert_int_equal(use.exits, 20);
	assert_int_equal(use.bytes, 1541);
	account_read(NULL, &use);
	assert_int_equal(use.exits + use.bytes, 0);
	json_decref(stats);
	stats = json_loads(
		"{\"devices\": {\"a\": {\"bytes\": -5, \"x_bytes\": 9223372036854775807, "
		"\"y_bytes\": 9223372036854775807}}}",
		0, NULL);
	account_read(stats, &use);
	assert_true(use.bytes == 1ULL << 53);
	json_decref(stats);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, made_set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_life), TEST(test_held), TEST(test_query),
					   TEST(test_recover), TEST(test_stats)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
