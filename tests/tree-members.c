/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of N members in this process, over socket pairs: what it takes to connect it, what a
 * request to all and its answer take, what a member needs, and what passes the root. One JSON
 * object.
 *
 *     tree-members N FAN BARRIERS
 */

#include <inttypes.h>
#include <malloc.h>

#include "lib/parse.h"
#include "tree/test/sim.h"

static double seconds(uint64_t since)
{
	return (double)(io_now_ns() - since) / 1e9;
}

static void wait_answer(struct sim *sim)
{
	while (!sim->answer && !sim->top_closed)
		loop_run_once(sim->loop, -1);
	if (sim->top_closed)
		sim_die(sim->reason);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double barrier(struct sim *sim)
{
	uint64_t begin = io_now_ns();

	sim_send(sim, json_pack("{s:s}", "op", "echo"));
	wait_answer(sim);
	return seconds(begin);
}

static double median_barrier(struct sim *sim, unsigned n)
{
	double *times = calloc(n, sizeof(*times)), median;

	for (unsigned i = 0; i < n; i++)
		times[i] = barrier(sim);
	qsort(times, n, sizeof(*times), compare);
	median = times[n / 2];
	free(times);
	return median;
}

static uint64_t all_messages(const struct sim *sim)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < sim->n; i++)
		count += tree_messages(sim->node[i].member);
	return count;
}

static void measure(unsigned n, unsigned fan, unsigned barriers)
{
	size_t before = mallinfo2().uordblks;
	struct sim *sim = sim_create(n, fan);
	uint64_t begin = io_now_ns(), root, all;
	double connect, median;

	sim_join(sim, 0);
	wait_answer(sim);
	connect = seconds(begin);
	if (tree_reached(sim->node[0].member) != n)
		sim_die("not all are there");
	barrier(sim);
	root = tree_messages(sim->node[0].member);
	all = all_messages(sim);
	barrier(sim);
	root = tree_messages(sim->node[0].member) - root;
	all = all_messages(sim) - all;
	median = median_barrier(sim, barriers);
	printf("{\"members\": %u, \"connect_s\": %.6f, \"barrier_s\": %.6f, \"member_bytes\": %zu, "
	       "\"root_messages\": %" PRIu64 ", \"messages\": %" PRIu64 "}\n",
	       n, connect, median, (mallinfo2().uordblks - before) / n, root, all);
	sim_destroy(sim);
}

int main(int argc, char **argv)
{
	unsigned n, fan, barriers;
	struct error err;

	if (argc != 4 || parse_uint(argv[1], "N", 1, 100000, &n, &err) ||
	    parse_uint(argv[2], "FAN", 2, 64, &fan, &err) ||
	    parse_uint(argv[3], "BARRIERS", 1, 10000, &barriers, &err)) {
		fprintf(stderr, "usage: tree-members N FAN BARRIERS\n");
		return 2;
	}
	measure(n, fan, barriers);
	return 0;
}
