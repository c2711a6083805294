/* SPDX-License-Identifier: Apache-2.0 */
/* Which VMs move, and where to. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "job/migrate.h"
#include "lib/cleanup.h"

#define GIB (1ll << 30)
#define NODES 4
#define VMS 4

struct row {
	const char *what;
	const char *vms;    /* node of each, as "0112" */
	const char *drains; /* nodes, as "02" */
	const char *full;   /* nodes without memory */
	const char *lost;   /* nodes that say nothing */
	int per_node;
	const char *names, *to; /* VMs, as "02", or NULL: of nodes that drain; NULL: any node */
	const char *plan;	/* "0>3 2>1", or what the error says */
};

/* clang-format off */
static const struct row rows[] = {
	{"one, to a node", "0123", "", "", "", 2, "0", "n3", "0>3"},
	{"one, anywhere", "0123", "", "", "", 2, "1", NULL, "1>0"},
	{"to an empty node", "0012", "", "", "", 2, "1", "n3", "1>3"},
	{"several in the room of one", "0123", "", "", "", 2, "01", "n3", "no node has room for VM v-1: n3: it has as many VMs of the cluster as vms-per-node allows"},
	{"several", "0123", "", "", "", 4, "012", "n3", "0>3 1>3 2>3"},
	{"and where one has no room the next has", "0123", "", "", "", 2, "012", NULL, "0>1 1>0 2>3"},
	{"from nodes that drain", "0012", "0", "", "", 2, NULL, NULL, "0>1 1>2"},
	{"not to others that drain", "0012", "01", "", "", 2, NULL, NULL, "0>2 1>3 2>3"},
	{"nobody drains", "0012", "", "", "", 2, NULL, NULL, "no VM was named, and no node with VMs of v drains"},
	{"a node without VMs drains", "0012", "3", "", "", 2, NULL, NULL, "no VM was named"},
	{"to one that drains", "0012", "3", "", "", 2, "0", "n3", "no node has room for VM v-0: n3: draining: of age"},
	{"to one that is full", "0012", "", "3", "", 2, "0", "n3", "n3: 512 MiB of memory are free"},
	{"to one that is lost", "0012", "", "", "3", 2, "0", "n3", "n3: it says nothing of itself"},
	{"around those that are full, or lost", "0012", "", "1", "2", 4, "0", NULL, "0>3"},
	{"nowhere", "0000", "0", "123", "", 4, NULL, NULL, "no node has room for VM v-0: n1: 512 MiB"},
	{"where it is", "0012", "", "", "", 2, "2", "n1", "VM v-2 is at node n1 already"},
	{"no such node", "0012", "", "", "", 2, "2", "n9", "n9 is not a node of cluster v"},
	{"no such VM", "0012", "", "", "", 2, "7", NULL, "cluster v has no VM v-7"},
};
/* clang-format on */

static bool has(const char *digits, size_t n)
{
	return strchr(digits, (char)('0' + n)) != NULL;
}

static json_t *facts(const struct row *row, size_t n)
{
	json_t *facts =
		json_pack("{s:{s:i, s:i}, s:{s:i, s:I}}", "topology", "threads", 4, "cores", 4,
			  "free", "threads", 4, "memory", has(row->full, n) ? GIB / 2 : 8 * GIB);

	if (has(row->drains, n))
		json_object_set_new(facts, "draining", json_string("of age"));
	return facts;
}

static void make_job(const struct row *row, struct job *j)
{
	*j = (struct job){.nnodes = NODES, .nvms = VMS};
	j->node = calloc(NODES, sizeof(*j->node));
	j->vm = calloc(VMS, sizeof(*j->vm));
	j->spec.name = "v";
	j->spec.self = true;
	j->spec.environment = json_pack("{s:i, s:I, s:i}", "cpus", 1, "memory", (json_int_t)GIB,
					"vms-per-node", row->per_node);
	for (size_t i = 0; i < NODES; i++) {
		snprintf(j->node[i].name, sizeof(j->node[i].name), "n%zu", i);
		j->node[i].facts = has(row->lost, i) ? NULL : facts(row, i);
	}
	for (size_t i = 0; i < VMS; i++) {
		snprintf(j->vm[i].name, sizeof(j->vm[i].name), "v-%zu", i);
		j->vm[i].state = VM_READY;
		j->vm[i].place = (uint32_t)(row->vms[i] - '0');
		j->node[j->vm[i].place].vms++;
	}
}

static void free_job(struct job *j)
{
	for (size_t i = 0; i < NODES; i++)
		json_decref(j->node[i].facts);
	json_decref((json_t *)j->spec.environment);
	free(j->node);
	free(j->vm);
}

static json_t *names(const char *digits)
{
	json_t *list = digits ? json_array() : NULL;

	for (; digits && *digits; digits++)
		json_array_append_new(list, json_sprintf("v-%c", *digits));
	return list;
}

static void show(const struct migrate *m, char *ret, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < m->n; i++)
		used += (size_t)snprintf(ret + used, size - used, "%s%s>%u", i ? " " : "",
					 m->move[i].vm->name + strlen("v-"), m->move[i].to);
}

static void check(const struct row *row)
{
	struct error err = {""};
	char text[128] = "";
	struct job j;
	struct migrate m = {.job = &j, .names = names(row->names), .wanted = (char *)row->to};
	int r;

	make_job(row, &j);
	r = migrate_plan(&m, &err);
	show(&m, text, sizeof(text));
	if (!r && strcmp(text, row->plan))
		fail_msg("%s: %s, not %s", row->what, text, row->plan);
	if (r && (strchr(row->plan, '>') || !strstr(err.text, row->plan)))
		fail_msg("%s: \"%s\" does not say \"%s\"", row->what, err.text, row->plan);
	for (size_t i = 0; i < m.n; i++)
		assert_int_equal(m.move[i].from, m.move[i].vm->place);
	free(m.move);
	json_decref(m.names);
	free_job(&j);
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		check(&rows[i]);
}

/* One that is suspended, or has not come up, stays. */
static void test_states(void **state)
{
	const struct row row = {"", "0012", "0", "", "", 2, NULL, NULL, ""};
	struct error err = {""};
	struct job j;
	struct migrate m = {.job = &j};

	make_job(&row, &j);
	j.vm[1].state = VM_PAUSED;
	assert_int_equal(migrate_plan(&m, &err), -EAGAIN);
	assert_string_equal(err.text, "VM v-1 does not run");
	free(m.move);
	free_job(&j);
}

/* A node that is asked only to end what an earlier cluster had takes none. */
static void test_others(void **state)
{
	const struct row row = {"", "0001", "", "", "", 2, "0", "n3", ""};
	struct error err = {""};
	struct job j;
	struct migrate m = {.job = &j, .names = names(row.names), .wanted = (char *)row.to};

	make_job(&row, &j);
	j.spec.others = 1;
	assert_int_equal(migrate_plan(&m, &err), -ENOSPC);
	assert_string_equal(err.text, "no node has room for VM v-0: n3: it is not one of --nodes");
	free(m.move);
	json_decref(m.names);
	free_job(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows),
					   cmocka_unit_test(test_states),
					   cmocka_unit_test(test_others)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
