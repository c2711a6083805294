/* SPDX-License-Identifier: Apache-2.0 */
/* Trees of members: requests and their answers, lost children, lost roots, peers that lie. */

#include "channel/test/ends.h"
#include "tree/nodeset.h"
#include "tree/test/sim.h"

#define NODES 300u
#define FAN 4u

static int setup(void **state)
{
	*state = sim_create(NODES, FAN);
	return 0;
}

static int teardown(void **state)
{
	sim_destroy(*state);
	return 0;
}

static const char *ok_of(struct sim *sim)
{
	return json_string_value(json_object_get(sim->answer, "ok"));
}

static void join(struct sim *sim)
{
	sim_join(sim, 0);
	RUN_UNTIL(sim->loop, sim->answer);
}

static void ask(struct sim *sim, const char *op, const char *to)
{
	json_t *m = json_pack("{s:s}", "op", op);

	if (to)
		json_object_set_new(m, "to", json_string(to));
	sim_send(sim, m);
	RUN_UNTIL(sim->loop, sim->answer);
	assert_int_equal(json_integer_value(json_object_get(sim->answer, "re")), sim->id);
}

/* Entries of all answers to the last request. */
static size_t entries(struct sim *sim, const char *key)
{
	size_t n = 0, i;
	json_t *part;

	json_array_append(sim->parts, sim->answer);
	json_array_foreach (sim->parts, i, part) {
		const json_t *e = json_object_get(part, key);

		n += json_is_array(e) ? json_array_size(e) : json_object_size(e);
	}
	json_array_remove(sim->parts, json_array_size(sim->parts) - 1);
	return n;
}

static const json_t *find_event(struct sim *sim, const char *event, const char *nodes)
{
	json_t *e;
	size_t i;

	json_array_foreach (sim->events, i, e)
		if (!strcmp(json_string_value(json_object_get(e, "event")), event) &&
		    !strcmp(json_string_value(json_object_get(e, "nodes")), nodes))
			return e;
	return NULL;
}

static void test_requests(void **state)
{
	struct sim *sim = *state;
	const json_t *first;

	join(sim);
	assert_string_equal(ok_of(sim), "0-299");
	assert_int_equal(entries(sim, "errors"), 0);
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0-299");
	for (unsigned i = 0; i < NODES; i++)
		assert_int_equal(sim->node[i].asked, 1);
	ask(sim, "place", NULL);
	assert_string_equal(ok_of(sim), "");
	assert_int_equal(entries(sim, "values"), NODES);
	ask(sim, "place", "0,17,299");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(sim->answer, "values"), "17")),
		17);
	assert_int_equal(entries(sim, "values"), 3);
	ask(sim, "fail", "5-9");
	assert_int_equal(entries(sim, "errors"), 5);
	/* With what else it says, but nobody speaks for another node. */
	first = json_array_get(json_object_get(sim->answer, "errors"), 0);
	assert_int_equal(json_integer_value(json_object_get(first, "errno")), EBUSY);
	assert_string_equal(json_string_value(json_object_get(first, "missing")), "threads");
	assert_in_range(json_integer_value(json_object_get(first, "node")), 5, 9);
	ask(sim, "frobnicate", "299");
	assert_int_equal(entries(sim, "errors"), 1);
	ask(sim, "echo", "");
	assert_string_equal(ok_of(sim), "");
	assert_int_equal(json_array_size(sim->events), 0);
}

/* Refused as a whole, and the connection goes on. */
static void test_refused(void **state)
{
	static const char *const bad[] = {"300", "0-300", "x", "5-"};
	struct sim *sim = *state;

	join(sim);
	for (unsigned i = 0; i < 4; i++) {
		ask(sim, "echo", bad[i]);
		assert_true(json_integer_value(json_object_get(sim->answer, "errno")) > 0);
		assert_true(json_string_length(json_object_get(sim->answer, "error")) > 0);
	}
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0-299");
}

static void ends_with(struct sim *sim, json_t *message, const char *reason)
{
	assert_int_equal(conn_send(sim->top, message, NULL), 0);
	json_decref(message);
	RUN_UNTIL(sim->loop, sim->top_closed);
	assert_non_null(strstr(sim->reason, reason));
}

static void test_ids(void **state)
{
	struct sim *sim = *state;

	join(sim);
	sim_send(sim, json_pack("{s:s, s:s}", "op", "hang", "to", "7"));
	ends_with(sim, json_pack("{s:s, s:I}", "op", "echo", "id", sim->id), "the id of another");
	join(sim);
	ends_with(sim, json_pack("{s:s}", "op", "echo"), "without an id");
	join(sim);
	ends_with(sim, json_pack("{s:i, s:b}", "re", 5, "done", 1), "nothing that was asked");
}

/* A child with a subtree goes in the middle of a request: who was behind it is taken over. */
static void test_child_killed(void **state)
{
	struct sim *sim = *state;
	uint64_t begin;

	join(sim);
	sim_send(sim, json_pack("{s:s, s:s}", "op", "hang", "to", "1,2,80"));
	RUN_UNTIL(sim->loop, sim->node[1].hangs && sim->node[2].hangs && sim->node[80].hangs);
	tree_answer(take_ptr(sim->node[80].hangs), 0, NULL, NULL);
	begin = io_now_ns();
	sim_kill(sim, 1);
	RUN_UNTIL(sim->loop, sim->answer);
	assert_string_equal(ok_of(sim), "80");
	assert_int_equal(entries(sim, "errors"), 2);
	assert_int_equal(
		json_integer_value(json_object_get(
			json_array_get(json_object_get(sim->answer, "errors"), 0), "errno")),
		EHOSTDOWN);
	RUN_UNTIL(sim->loop, tree_reached(sim->node[0].member) == NODES - 1);
	assert_true(io_now_ns() - begin < 5000000000ull);
	assert_non_null(find_event(sim, "node-lost", "1-74"));
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0,2-299");
	assert_int_equal(entries(sim, "errors"), 1);
	/* It is back, and a leaf. */
	sim_start(sim, 1);
	RUN_UNTIL(sim->loop, find_event(sim, "node-back", "1"));
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0-299");
	assert_int_equal(tree_reached(sim->node[1].member), 1);
}

/* Deep in the tree, several at once, and some that were never there. */
static void test_many_killed(void **state)
{
	static const unsigned gone[] = {2, 3, 76, 77, 78, 150, 151, 299};
	struct sim *sim = *state;

	for (unsigned i = 0; i < 4; i++) {
		sim_kill(sim, gone[i]);
		sim->node[gone[i]].gone = i % 2;
		sim->node[gone[i]].deaf = !(i % 2);
	}
	join(sim);
	assert_string_equal(ok_of(sim), "0-1,4-75,78-299");
	assert_int_equal(entries(sim, "errors"), 4);
	for (unsigned i = 4; i < 8; i++)
		sim_kill(sim, gone[i]);
	RUN_UNTIL(sim->loop, tree_reached(sim->node[0].member) == NODES - 8);
	run_for(sim->loop, 300);
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0-1,4-75,79-149,152-298");
	assert_int_equal(entries(sim, "errors"), 8);
}

static bool all_orphaned(const struct sim *sim, unsigned times)
{
	for (unsigned i = 1; i < sim->n; i++)
		if (sim->node[i].orphaned != times)
			return false;
	return true;
}

static bool all_over(const struct sim *sim)
{
	for (unsigned i = 1; i < sim->n; i++)
		if (!sim->node[i].over)
			return false;
	return true;
}

/* Everybody below begins the grace time, and nobody's ends early. */
static void test_root_killed(void **state)
{
	struct sim *sim = *state;
	uint64_t begin;

	join(sim);
	begin = io_now_ns();
	sim_kill(sim, 0);
	RUN_UNTIL(sim->loop, all_orphaned(sim, 1));
	assert_true(sim->top_closed);
	assert_int_equal(sim->node[1].over, 0);
	RUN_UNTIL(sim->loop, all_over(sim));
	assert_true(io_now_ns() - begin >= 400000000ull);
}

/* The coordinator goes and comes back in time: the tree has stood meanwhile. */
static void test_back_in_time(void **state)
{
	struct sim *sim = *state;

	join(sim);
	conn_destroy(take_ptr(sim->top));
	RUN_UNTIL(sim->loop, all_orphaned(sim, 1));
	join(sim);
	assert_string_equal(ok_of(sim), "0-299");
	run_for(sim->loop, 600);
	for (unsigned i = 0; i < NODES; i++) {
		assert_int_equal(sim->node[i].adopted, 1);
		assert_int_equal(sim->node[i].over, 0);
	}
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0-299");
}

static void test_bad_joins(void **state)
{
	static const char *const bad[] = {
		"{\"op\": \"join\"}",
		"{\"id\": 1, \"session\": 1, \"place\": 0, \"fan\": 4, \"nodes\": []}",
		"{\"id\": 1, \"session\": 1, \"place\": 0, \"fan\": 1, \"nodes\": [\"a\"]}",
		"{\"id\": 1, \"session\": 1, \"place\": -1, \"fan\": 4, \"nodes\": [\"a\"]}",
		"{\"id\": 1, \"session\": 1, \"place\": 1048576, \"fan\": 4, \"nodes\": [\"a\"]}",
		"{\"id\": 1, \"session\": 1, \"place\": 0, \"fan\": 4, \"nodes\": [\"a\", 5]}",
	};
	struct sim *sim = *state;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *m = json_loads(bad[i], 0, NULL);

		sim->top = sim_conn(sim, sim_call(sim, &sim->node[0]), &top_ops, sim);
		sim->top_closed = false;
		sim_send(sim, m);
		RUN_UNTIL(sim->loop, sim->top_closed);
		assert_int_equal(json_integer_value(json_object_get(sim->answer, "errno")), EINVAL);
	}
	join(sim);
	assert_string_equal(ok_of(sim), "0-299");
}

/* -------- a child that lies -------- */

struct liar {
	struct sim *sim;
	struct conn *conn;
	const char *answer; /* to a request that is no join; its re is put in */
};

static void liar_message(void *arg, json_t *message)
{
	struct liar *l = arg;
	json_t *id = json_object_get(message, "id"), *m;

	if (json_object_get(message, "nodes")) {
		m = json_pack("{s:O, s:b, s:s}", "re", id, "done", 1, "ok", "2-3");
	} else {
		m = json_loads(l->answer, 0, NULL);
		if (!json_object_get(m, "re"))
			json_object_set(m, "re", id);
	}
	conn_send(l->conn, m, NULL);
	json_decref(m);
}

static void liar_closed(void *arg, int code, const char *reason)
{
	struct liar *l = arg;

	conn_destroy(take_ptr(l->conn));
}

static const struct conn_ops liar_ops = {liar_message, sim_no_data, NULL, liar_closed};

static void liar_connect(void *arg, const char *name, struct tree_call *call)
{
	struct liar *l = arg;
	int s[2];

	if (strcmp(name, "n2") || l->conn) {
		tree_refused(call, "connection refused");
		return;
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	l->conn = sim_conn(l->sim, s[1], &liar_ops, l);
	tree_connected(call, sim_conn(l->sim, s[0], &sim_no_ops, NULL));
}

static void liar_request(void *arg, struct tree_request *request, const json_t *message)
{
	tree_answer(request, 0, NULL, NULL);
}

static void liar_nothing(void *arg)
{
}

static const struct tree_ops liar_node_ops = {liar_connect, node_cancel,  liar_request,
					      liar_nothing, liar_nothing, liar_nothing};

/* What it says ends it, and its share is answered for by us; lost nodes are told. */
static void lie(struct sim *sim, const char *text, bool ends)
{
	struct liar l = {.sim = sim, .answer = text};
	struct tree_params p = {.loop = sim->loop, .ops = &liar_node_ops, .arg = &l};
	struct sim_node *node = &sim->node[0];

	tree_destroy(take_ptr(node->member));
	assert_int_equal(tree_create(&p, &node->member, NULL), 0);
	json_array_clear(sim->events);
	sim->n = 4;
	join(sim);
	assert_string_equal(ok_of(sim), "0,2-3");
	ask(sim, "echo", NULL);
	assert_string_equal(ok_of(sim), "0");
	assert_int_equal(entries(sim, "errors"), 3);
	RUN_UNTIL(sim->loop, ends == !l.conn);
	if (ends)
		RUN_UNTIL(sim->loop, find_event(sim, "node-lost", "2-3"));
	tree_destroy(take_ptr(node->member));
	RUN_UNTIL(sim->loop, !l.conn);
	sim_start(sim, 0);
	sim->n = NODES;
}

static void test_liars(void **state)
{
	struct sim *sim = *state;

	sim->fan = 2;
	lie(sim, "{\"done\": true}", false);
	lie(sim, "{\"done\": true, \"errno\": 16, \"error\": \"busy\"}", false);
	lie(sim, "{\"done\": true, \"ok\": \"1-3\"}", true);
	lie(sim, "{\"done\": true, \"ok\": \"0\"}", true);
	lie(sim, "{\"done\": true, \"ok\": 5}", true);
	lie(sim, "{\"done\": true, \"ok\": \"1-\"}", true);
	lie(sim, "{\"done\": true, \"errors\": [5]}", true);
	lie(sim, "{\"done\": true, \"errors\": [{\"node\": 0}]}", true);
	lie(sim, "{\"done\": true, \"values\": {\"0\": 1}}", true);
	lie(sim, "{\"done\": true, \"values\": {\"2-3\": 1}}", true);
	lie(sim, "{\"re\": 99, \"done\": true, \"ok\": \"2-3\"}", true);
	lie(sim, "{\"event\": \"node-lost\", \"nodes\": \"0\"}", true);
	lie(sim, "{\"event\": \"node-back\", \"nodes\": \"x\"}", true);
}

/* Nobody is more than two below the first, and no tree is wider than it takes for that. */
static void test_fan(void **state)
{
	const uint32_t widest = 1 + TREE_FAN_MAX + TREE_FAN_MAX * TREE_FAN_MAX;
	uint32_t before = tree_fan(1);

	(void)state;
	assert_int_equal(before, 16);
	for (uint32_t n = 2; n <= widest; n++) {
		uint32_t fan = tree_fan(n), share = (n - 1 + fan - 1) / fan;

		assert_true(share <= fan + 1);
		assert_true(fan == before || fan == before + 1);
		before = fan;
	}
	assert_int_equal(tree_fan(273), 16);
	assert_int_equal(tree_fan(274), 17);
	assert_int_equal(tree_fan(1000), 32);
	assert_int_equal(before, TREE_FAN_MAX);
	assert_int_equal(tree_fan(UINT32_MAX), TREE_FAN_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_requests),	    TEST(test_refused),	    TEST(test_ids),
		TEST(test_child_killed),    TEST(test_many_killed), TEST(test_root_killed),
		TEST(test_back_in_time),    TEST(test_bad_joins),   TEST(test_liars),
		cmocka_unit_test(test_fan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
