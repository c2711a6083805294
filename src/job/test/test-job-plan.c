/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of clusters, and the lists of nodes they are made of. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "job/nodelist.h"
#include "job/plan.h"
#include "lib/error.h"

#define GIB (1ll << 30)

static json_t *facts(const char *type, int threads, int cores, int free_threads, json_int_t memory)
{
	return json_pack("{s:s, s:[s], s:{s:i, s:i}, s:{s:i, s:I}}", "type", type, "labels", "ib",
			 "topology", "threads", threads, "cores", cores, "free", "threads",
			 free_threads, "memory", memory);
}

static json_t *environment(int cpus, json_int_t memory, int per_node)
{
	return json_pack("{s:i, s:I, s:i}", "cpus", cpus, "memory", memory, "vms-per-node",
			 per_node);
}

struct row {
	const char *what;
	int threads, cores, free_threads; /* of each node */
	json_int_t memory;
	int cpus, per_node; /* of each VM of 1 GiB */
	bool dedicated;
	unsigned nodes, vms;
	const char *plan; /* "0 0 1", or what the error says */
};

/* clang-format off */
static const struct row rows[] = {
	{"one on one", 4, 4, 4, 8 * GIB, 1, 1, false, 1, 1, "0"},
	{"one each", 4, 4, 4, 8 * GIB, 1, 1, false, 3, 3, "0 1 2"},
	{"in blocks", 4, 4, 4, 8 * GIB, 1, 2, false, 3, 5, "0 0 1 1 2"},
	{"over all nodes", 4, 4, 4, 8 * GIB, 1, 4, false, 3, 3, "0 1 2"},
	{"and on few when there are few", 4, 4, 4, 8 * GIB, 1, 4, false, 2, 3, "0 0 1"},
	{"the last nodes stay empty", 4, 4, 4, 8 * GIB, 1, 4, false, 3, 2, "0 1"},
	{"none", 4, 4, 4, 8 * GIB, 1, 4, false, 3, 0, ""},
	{"shared VMs share threads", 4, 4, 4, 8 * GIB, 4, 3, false, 1, 3, "0 0 0"},
	{"but each has as many as its CPUs", 4, 4, 3, 8 * GIB, 4, 3, false, 1, 1,
	 "n0 takes 0 (3 of 4 hardware threads are free)"},
	{"dedicated ones do not share", 4, 4, 4, 8 * GIB, 2, 3, true, 2, 4, "0 0 1 1"},
	{"and there are no more", 4, 4, 4, 8 * GIB, 2, 3, true, 2, 5,
	 "5 VMs of 2 CPUs and 1 GiB do not fit, only 4: n0 takes 2; n1 takes 2"},
	{"they have whole cores", 8, 4, 8, 8 * GIB, 1, 8, true, 1, 4, "0 0 0 0"},
	{"and no halves", 8, 4, 8, 8 * GIB, 3, 8, true, 1, 3, "only 2"},
	{"memory bounds", 4, 4, 4, 2 * GIB, 1, 8, false, 2, 4, "0 0 1 1"},
	{"and is told", 4, 4, 4, GIB / 2, 1, 8, false, 1, 1, "n0 takes 0 (512 MiB of memory are free)"},
	{"vms-per-node bounds", 4, 4, 4, 8 * GIB, 1, 1, false, 2, 3, "only 2"},
	{"many nodes are not all told", 4, 4, 4, 8 * GIB, 1, 1, false, 9, 10, "n3 takes 1; and 5 more nodes"},
	{"no node", 4, 4, 4, 8 * GIB, 1, 1, false, 0, 1, "1 VM of 1 CPUs and 1 GiB do not fit, only 0: there is no node"},
};
/* With pinning: cores. */
static const struct row pinned[] = {
	{"two cores for two CPUs", 8, 4, 8, 8 * GIB, 2, 8, true, 2, 4, "0 0 1 1"},
	{"and there are no more", 8, 4, 8, 8 * GIB, 2, 8, true, 1, 3, "only 2"},
	{"one thread each", 4, 4, 4, 8 * GIB, 2, 8, true, 1, 2, "0 0"},
	{"they share cores", 8, 4, 8, 8 * GIB, 4, 8, false, 1, 2, "0 0"},
	{"of which there are enough", 8, 4, 6, 8 * GIB, 4, 8, false, 1, 1, "(6 of 8 hardware threads are free)"},
};
/* clang-format on */

static void show(const uint32_t *plan, size_t n, char *ret, size_t size)
{
	size_t used = 0;

	*ret = 0;
	for (size_t i = 0; i < n; i++)
		used += (size_t)snprintf(ret + used, size - used, "%s%u", i ? " " : "", plan[i]);
}

static void check(const struct row *row, const char *pinning)
{
	json_t *env = environment(row->cpus, GIB, row->per_node);
	json_t *says = facts("compute", row->threads, row->cores, row->free_threads, row->memory);
	struct plan_node nodes[16] = {0};
	char names[16][12], text[256];
	struct error err = {""};
	uint32_t plan[64];
	int r;

	json_object_set_new(env, "dedicated", json_boolean(row->dedicated));
	json_object_set_new(env, "pinning", json_string(pinning));
	for (unsigned i = 0; i < row->nodes; i++) {
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		nodes[i] = (struct plan_node){.name = names[i], .facts = says};
	}
	r = plan_make(env, nodes, row->nodes, row->vms, plan, &err);
	if (!r) {
		show(plan, row->vms, text, sizeof(text));
		if (strcmp(text, row->plan))
			fail_msg("%s: %s, not %s", row->what, text, row->plan);
	} else if (r != -ENOSPC || !strstr(err.text, row->plan) || !*row->plan) {
		fail_msg("%s: \"%s\" does not say \"%s\"", row->what, err.text, row->plan);
	}
	json_decref(env);
	json_decref(says);
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		check(&rows[i], i % 2 ? "threads" : "none");
	for (size_t i = 0; i < sizeof(pinned) / sizeof(pinned[0]); i++)
		check(&pinned[i], "cores");
}

static void test_suitable(void **state)
{
	json_t *env = environment(1, GIB, 1), *fat = facts("fat", 4, 4, 4, 8 * GIB);
	json_t *drained = facts("fat", 4, 4, 4, 8 * GIB), *thin = facts("thin", 4, 4, 4, 8 * GIB);
	struct plan_node nodes[] = {{.name = "login", .out = true, .facts = fat},
				    {.name = "thin", .facts = thin},
				    {.name = "drained", .facts = drained},
				    {.name = "gone", .gone = "connection refused"},
				    {.name = "fat", .facts = fat}};
	struct error err;
	uint32_t plan[2];

	json_object_set_new(drained, "draining", json_string("a fan is loud"));
	json_object_set_new(env, "node", json_pack("{s:s, s:[s]}", "type", "fat", "labels", "ib"));
	assert_int_equal(plan_make(env, nodes, 5, 1, plan, &err), 0);
	assert_int_equal(plan[0], 4);
	assert_int_equal(plan_make(env, nodes, 5, 2, plan, &err), -ENOSPC);
	assert_non_null(strstr(err.text,
			       "only 1: thin takes 0 (its type is thin, not fat); drained "
			       "takes 0 (draining: a fan is loud); gone takes 0 "
			       "(connection refused); fat takes 1"));
	assert_null(strstr(err.text, "login"));
	json_object_set_new(env, "node", json_pack("{s:[s]}", "labels", "gpu"));
	assert_int_equal(plan_make(env, nodes, 5, 1, plan, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "it has no label gpu"));
	json_decref(env);
	json_decref(fat);
	json_decref(thin);
	json_decref(drained);
}

/* A node may say anything, or nothing. */
static void test_odd_facts(void **state)
{
	static const char *const odd[] = {"{}", "{\"free\": 1}", "{\"free\": {\"threads\": -1}}",
					  "{\"topology\": {\"cores\": 0, \"threads\": 8}}",
					  "{\"labels\": {}, \"type\": 7}"};
	json_t *env = environment(1, GIB, 1);
	uint32_t plan[1];

	json_object_set_new(env, "dedicated", json_true());
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		json_t *says = json_loads(odd[i], 0, NULL);
		struct plan_node node = {.name = "odd", .facts = says};

		assert_int_equal(plan_make(env, &node, 1, 1, plan, NULL), -ENOSPC);
		json_decref(says);
	}
	json_decref(env);
}

/* -------- lists -------- */

static void lists(const char *text, const char *wanted)
{
	json_t *list = json_array();
	struct error err = {""};
	char all[512] = "";
	const json_t *entry;
	size_t i;

	if (nodelist_add(list, text, &err) == 0) {
		json_array_foreach (list, i, entry) {
			strcat(all, i ? " " : "");
			strcat(all, json_string_value(entry));
		}
		assert_string_equal(all, wanted);
	} else if (!strstr(err.text, wanted)) {
		fail_msg("%s: \"%s\" does not say \"%s\"", text, err.text, wanted);
	}
	json_decref(list);
}

static void test_lists(void **state)
{
	lists("a", "a");
	lists("a,b,c", "a b c");
	lists("a@10.0.0.1,b@host.site:7451", "a@10.0.0.1 b@host.site:7451");
	lists("n[1-3]", "n1 n2 n3");
	lists("n[08-10,3]", "n08 n09 n10 n3");
	lists("x,n[1,2]-ib,y", "x n1-ib n2-ib y");
	lists("n[1-2]@10.0.0.[1-2]", "n1@10.0.0.1 n2@10.0.0.2");
	lists("a,,b", "node name \"\"");
	lists("", "node name \"\"");
	lists("a,a", "named twice");
	lists("a@h1,a@h2", "named twice");
	lists("a@", "NAME@HOST");
	lists("a@-x", "NAME@HOST");
	lists("a@h:0", "port");
	lists("a@h:x", "port");
	lists("n[1-", "like n[1-4");
	lists("n[]", "like n[1-4");
	lists("n[2-1]", "like n[1-4");
	lists("n[1-99999999]", "like n[1-4");
	lists("n[a]", "like n[1-4");
	lists("-x", "node name");
}

static void test_files(void **state)
{
	char path[] = "/tmp/wisp-nodelist.XXXXXX";
	int fd = mkstemp(path);
	json_t *list = json_array();
	struct error err;

	assert_true(fd >= 0);
	dprintf(fd, "# ours\na b@h\n\n  n[1-2] # two\n");
	assert_int_equal(nodelist_add_file(list, path, &err), 0);
	assert_int_equal(json_array_size(list), 4);
	assert_int_equal(nodelist_find(list, "b"), 1);
	assert_int_equal(nodelist_find(list, "n2"), 3);
	assert_int_equal(nodelist_find(list, "n3"), -1);
	dprintf(fd, "a\n");
	json_array_clear(list);
	assert_int_equal(nodelist_add_file(list, path, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":5: node a is named twice"));
	assert_int_equal(ftruncate(fd, 0), 0);
	json_array_clear(list);
	assert_int_equal(nodelist_add_file(list, path, &err), -EINVAL);
	assert_int_equal(nodelist_add_file(list, "/nowhere", &err), -ENOENT);
	close(fd);
	unlink(path);
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),	  cmocka_unit_test(test_suitable),
		cmocka_unit_test(test_odd_facts), cmocka_unit_test(test_lists),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
