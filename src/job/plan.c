/* SPDX-License-Identifier: Apache-2.0 */
/* Placement in blocks, and what a node is good for. */

#include "job/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"

#define TELL 4 /* nodes of which an error says what is wrong */

static uint64_t number(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

static const char *text(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static const json_t *group(const json_t *environment, const char *name, const char *key)
{
	return json_object_get(json_object_get(environment, name), key);
}

static bool has(const json_t *list, const char *wanted)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (json_is_string(item) && !strcmp(json_string_value(item), wanted))
			return true;
	return false;
}

/* -------- one node -------- */

/* Whether it is of the kind that the environment wants, and takes anything at all. */
static bool is_suitable(const json_t *environment, const struct plan_node *node, char *why,
			size_t size)
{
	const char *type = json_string_value(group(environment, "node", "type"));
	const char *its = text(node->facts, "type"), *draining = text(node->facts, "draining");
	const json_t *label;
	size_t i;

	if (draining) {
		snprintf(why, size, "draining: %s", draining);
		return false;
	}
	if (type && (!its || strcmp(type, its))) {
		snprintf(why, size, "its type is %s, not %s", its ? its : "not known", type);
		return false;
	}
	json_array_foreach (group(environment, "node", "labels"), i, label) {
		const char *wanted = json_string_value(label);

		if (wanted && !has(json_object_get(node->facts, "labels"), wanted)) {
			snprintf(why, size, "it has no label %s", wanted);
			return false;
		}
	}
	return true;
}

/* Hardware threads that have to be there for a VM: whole cores if it is to have its own. */
static uint64_t threads_of(const json_t *environment, const json_t *topology)
{
	uint64_t cpus = number(environment, "cpus"), cores = number(topology, "cores");
	uint64_t per_core = cores ? number(topology, "threads") / cores : 1;
	const char *pinning = text(environment, "pinning");

	per_core = per_core ? per_core : 1;
	if (pinning && !strcmp(pinning, "cores"))
		return cpus * per_core;
	if (json_is_true(json_object_get(environment, "dedicated")))
		return (cpus + per_core - 1) / per_core * per_core;
	return cpus;
}

static uint64_t by_threads(const json_t *environment, const json_t *facts, char *why, size_t size)
{
	const json_t *topology = json_object_get(facts, "topology");
	uint64_t have = number(json_object_get(facts, "free"), "threads");
	bool own = json_is_true(json_object_get(environment, "dedicated"));
	uint64_t want = threads_of(environment, topology);

	if (have < want) {
		snprintf(why, size, "%" PRIu64 " of %" PRIu64 " hardware threads are free", have,
			 number(topology, "threads"));
		return 0;
	}
	/* Shared VMs share. */
	return own && want ? have / want : UINT32_MAX;
}

static uint64_t by_memory(const json_t *environment, const json_t *facts, char *why, size_t size)
{
	uint64_t have = number(json_object_get(facts, "free"), "memory");
	uint64_t want = number(environment, "memory");
	const char *pages = text(environment, "page-size");
	char readable[32];

	/* Of its large pages a node's facts say nothing. */
	if (!want || (pages && strcmp(pages, "4K")))
		return UINT32_MAX;
	if (have < want)
		snprintf(why, size, "%s of memory are free",
			 format_size(have & ~((1ull << 20) - 1), readable, sizeof(readable)));
	return have / want;
}

unsigned plan_capacity(const json_t *environment, const struct plan_node *node, char *why,
		       size_t size)
{
	uint64_t most = number(environment, "vms-per-node"), threads, memory;

	*why = 0;
	if (node->out || node->gone) {
		snprintf(why, size, "%s", node->gone ? node->gone : "it is not one of --nodes");
		return 0;
	}
	if (!is_suitable(environment, node, why, size))
		return 0;
	threads = by_threads(environment, node->facts, why, size);
	memory = threads ? by_memory(environment, node->facts, why, size) : 0;
	most = most ? most : 1;
	most = most < threads ? most : threads;
	return (unsigned)(most < memory ? most : memory);
}

/* -------- all -------- */

/* "n1: 2 (draining: ...); n2: 0 (...); and 7 more" */
static void describe(const json_t *environment, const struct plan_node *nodes, size_t n, char *ret,
		     size_t size)
{
	size_t told = 0, used = 0, left = 0;

	*ret = 0;
	for (size_t i = 0; i < n; i++) {
		char why[96];
		unsigned most = plan_capacity(environment, &nodes[i], why, sizeof(why));

		if (nodes[i].out)
			continue;
		if (told++ >= TELL) {
			left++;
			continue;
		}
		used += (size_t)snprintf(ret + used, size - used, "%s%s takes %u%s%s%s",
					 told > 1 ? "; " : "", nodes[i].name, most,
					 *why ? " (" : "", why, *why ? ")" : "");
		if (used >= size)
			return;
	}
	if (left)
		snprintf(ret + used, size - used, "; and %zu more nodes", left);
}

static int refuse(const json_t *environment, const struct plan_node *nodes, size_t n, size_t vms,
		  size_t fit, struct error *err)
{
	char readable[32], text_of_nodes[384];

	describe(environment, nodes, n, text_of_nodes, sizeof(text_of_nodes));
	return error_set(err, -ENOSPC,
			 "%zu VM%s of %" PRIu64 " CPUs and %s do not fit, only %zu: %s", vms,
			 vms == 1 ? "" : "s", number(environment, "cpus"),
			 format_size(number(environment, "memory"), readable, sizeof(readable)),
			 fit, *text_of_nodes ? text_of_nodes : "there is no node");
}

/* VMs that fit when no node gets more than so many. */
static size_t fit_within(const unsigned *capacity, size_t n, unsigned most)
{
	size_t fit = 0;

	for (size_t i = 0; i < n; i++)
		fit += capacity[i] < most ? capacity[i] : most;
	return fit;
}

/* As few on a node as do it. */
static unsigned find_most(const unsigned *capacity, size_t n, size_t vms)
{
	unsigned low = 0, high = (unsigned)vms;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (fit_within(capacity, n, middle) < vms)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int plan_make(const json_t *environment, const struct plan_node *nodes, size_t n, size_t vms,
	      uint32_t *ret, struct error *err)
{
	CLEANUP_FREE unsigned *capacity = calloc(n + 1, sizeof(*capacity));
	size_t fit, k = 0;
	unsigned most;
	char why[96];

	if (!capacity)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		capacity[i] = plan_capacity(environment, &nodes[i], why, sizeof(why));
	fit = fit_within(capacity, n, UINT32_MAX);
	if (fit < vms)
		return refuse(environment, nodes, n, vms, fit, err);
	most = find_most(capacity, n, vms);
	for (size_t i = 0; i < n; i++)
		for (unsigned here = 0; here < most && here < capacity[i] && k < vms; here++)
			ret[k++] = (uint32_t)i;
	return 0;
}
