/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of N members in this process, over socket pairs: what it takes to connect one, what a
 * request to all of one and its answer take, what a member needs, and what passes the root. One
 * JSON object. Trees have their turns: with as many members in all, caches hold as little of small
 * ones as of a large one.
 *
 *     tree-members N BARRIERS TREES
 */

#include <inttypes.h>
#include <malloc.h>
#include <time.h>

#include "lib/parse.h"
#include "tree/test/sim.h"

static double seconds(uint64_t since)
{
	return (double)(io_now_ns() - since) / 1e9;
}

/* Of this process. Others that want the CPU are not in it. */
static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
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

/* Of all trees, n of each. */
static double median_barrier(struct sim **sim, unsigned trees, unsigned n)
{
	double *times = calloc((size_t)n * trees, sizeof(*times)), median;

	n *= trees;
	for (unsigned i = 0; i < n; i++)
		times[i] = barrier(sim[i % trees]);
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

/* Returns how long that took. */
static double make(struct sim **ret, unsigned n)
{
	struct sim *sim = *ret = sim_create(n, tree_fan(n));
	uint64_t begin = io_now_ns();
	double connect;

	sim_join(sim, 0);
	wait_answer(sim);
	connect = seconds(begin);
	if (tree_reached(sim->node[0].member) != n)
		sim_die("not all are there");
	barrier(sim);
	return connect;
}

static void measure(unsigned n, unsigned barriers, unsigned trees)
{
	struct sim **all_of = calloc(trees, sizeof(*all_of)), *sim;
	size_t before = mallinfo2().uordblks;
	uint64_t root, all;
	double connect = 0, median, cpu;

	for (unsigned i = 0; i < trees; i++)
		connect = make(&all_of[i], n);
	sim = all_of[0];
	root = tree_messages(sim->node[0].member);
	all = all_messages(sim);
	barrier(sim);
	root = tree_messages(sim->node[0].member) - root;
	all = all_messages(sim) - all;
	cpu = cpu_seconds();
	median = median_barrier(all_of, trees, barriers);
	cpu = (cpu_seconds() - cpu) / barriers / trees;
	printf("{\"members\": %u, \"fan\": %u, \"connect_s\": %.6f, \"barrier_s\": %.6f, "
	       "\"barrier_cpu_s\": %.6f, \"member_bytes\": %zu, "
	       "\"root_messages\": %" PRIu64 ", \"messages\": %" PRIu64 "}\n",
	       n, tree_fan(n), connect, median, cpu, (mallinfo2().uordblks - before) / n / trees,
	       root, all);
	for (unsigned i = 0; i < trees; i++)
		sim_destroy(all_of[i]);
	free(all_of);
}

int main(int argc, char **argv)
{
	unsigned n, barriers, trees;
	struct error err;

	if (argc != 4 || parse_uint(argv[1], "N", 1, 100000, &n, &err) ||
	    parse_uint(argv[2], "BARRIERS", 1, 10000, &barriers, &err) ||
	    parse_uint(argv[3], "TREES", 1, 10000, &trees, &err)) {
		fprintf(stderr, "usage: tree-members N BARRIERS TREES\n");
		return 2;
	}
	measure(n, barriers, trees);
	return 0;
}
