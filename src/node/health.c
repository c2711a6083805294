/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about a node's health. */

#include "node/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/tree.h"
#include "node/metrics.h"
#include "node/topology.h"

struct reader {
	const char *root;
	const struct topology *t;
	json_t *facts;
	enum health_state worst;
};

static const char *const states[] = {"ok", "warn", "bad"};

static void add(struct reader *r, const char *name, const char *about, double value,
		enum health_state state, const char *text)
{
	json_t *fact =
		json_pack("{s:s, s:f, s:s}", "name", name, "value", value, "state", states[state]);

	if (about)
		json_object_set_new(fact, "about", json_string(about));
	if (state != HEALTH_OK)
		json_object_set_new(fact, "text", json_string(text));
	json_array_append_new(r->facts, fact);
	if (state > r->worst)
		r->worst = state;
}

static void add_load(struct reader *r)
{
	unsigned cpus = 0;
	char line[128];
	double load;

	for (unsigned i = 0; i < r->t->ncores; i++)
		cpus += r->t->cores[i].ncpus;
	if (!tree_line(r->root, "/proc/loadavg", line, sizeof(line)))
		return;
	load = strtod(line, NULL);
	add(r, "load", NULL, load, load > 2.0 * cpus ? HEALTH_WARN : HEALTH_OK,
	    "more than two runnable threads for each CPU");
}

/* "Node 0 MemFree:  1024 kB" */
static void add_memory(struct reader *r, const struct topo_node *node)
{
	CLEANUP_FREE char *path =
		io_format("%s/sys/devices/system/node/node%u/meminfo", r->root, node->id);
	CLEANUP_FREE char *text = NULL;
	const char *at;
	char about[32];

	snprintf(about, sizeof(about), "node%u", node->id);
	if (!path || io_read_file(path, 1 << 16, &text, NULL) < 0)
		return;
	at = strstr(text, "MemFree:");
	if (at)
		add(r, "memory_free_bytes", about, strtod(at + 8, NULL) * 1024, HEALTH_OK, NULL);
}

static void add_pages(struct reader *r, const struct topo_node *node)
{
	for (unsigned i = 0; i < node->nsizes; i++) {
		char about[64], size[32];

		snprintf(about, sizeof(about), "node%u, %s", node->id,
			 format_size(node->pages[i].size, size, sizeof(size)));
		add(r, "huge_pages", about, node->pages[i].total, HEALTH_OK, NULL);
		add(r, "huge_pages_free", about, node->pages[i].free, HEALTH_OK, NULL);
	}
}

/* The name of a folder two above its file: mc0 of .../mc0/ce_count */
static void folder(const char *path, char *buf, size_t size)
{
	const char *end = strrchr(path, '/'), *begin = end;

	while (begin > path && begin[-1] != '/')
		begin--;
	snprintf(buf, size, "%.*s", (int)(end - begin), begin);
}

static void corrected(const char *path, void *arg)
{
	struct reader *r = arg;
	char about[64];

	folder(path, about, sizeof(about));
	add(r, "memory_errors_corrected", about, tree_number(r->root, path), HEALTH_OK, NULL);
}

static void uncorrected(const char *path, void *arg)
{
	struct reader *r = arg;
	uint64_t n = tree_number(r->root, path);
	char about[64];

	folder(path, about, sizeof(about));
	add(r, "memory_errors_uncorrected", about, n, n ? HEALTH_BAD : HEALTH_OK,
	    "memory lost data: have it replaced");
}

/* temp1_input has millidegrees, temp1_crit the limit. */
static void temperature(const char *path, void *arg)
{
	struct reader *r = arg;
	CLEANUP_FREE char *limit =
		io_format("%.*scrit", (int)(strrchr(path, '_') + 1 - path), path);
	char line[32], about[128], chip[64];
	double degrees, most;

	if (!limit || !tree_line(r->root, path, line, sizeof(line)))
		return;
	degrees = strtod(line, NULL) / 1000;
	most = tree_number(r->root, limit) / 1000.0;
	folder(path, chip, sizeof(chip));
	snprintf(about, sizeof(about), "%s/%.*s", chip, (int)strcspn(strrchr(path, '/') + 1, "_"),
		 strrchr(path, '/') + 1);
	add(r, "temperature_celsius", about, degrees,
	    most > 0 && degrees >= most		 ? HEALTH_BAD
	    : most > 0 && degrees >= 0.95 * most ? HEALTH_WARN
						 : HEALTH_OK,
	    "at the limit that the sensor's maker gives");
}

/* Of the machine itself, made-up roots have no clock. */
static void add_clock(struct reader *r)
{
	struct timex now = {0};
	int state = r->root[0] ? -1 : adjtimex(&now);

	if (state < 0)
		return;
	add(r, "clock_synchronized", NULL, state != TIME_ERROR,
	    state == TIME_ERROR ? HEALTH_WARN : HEALTH_OK,
	    "nobody sets this clock: times of records differ from other nodes'");
}

int health_read(const char *root, const struct topology *t, unsigned dead, json_t **ret,
		struct error *err)
{
	struct reader r = {.root = root, .t = t, .facts = json_array()};

	add_load(&r);
	for (unsigned i = 0; i < t->nnodes; i++) {
		add_memory(&r, &t->nodes[i]);
		add_pages(&r, &t->nodes[i]);
	}
	tree_each(root, "/sys/devices/system/edac/mc/mc*/ce_count", corrected, &r);
	tree_each(root, "/sys/devices/system/edac/mc/mc*/ue_count", uncorrected, &r);
	tree_each(root, "/sys/class/hwmon/hwmon*/temp*_input", temperature, &r);
	add_clock(&r);
	add(&r, "dead_vmms", NULL, dead, dead ? HEALTH_WARN : HEALTH_OK,
	    "hypervisors ended that nobody asked to");
	*ret = json_pack("{s:s, s:o}", "state", states[r.worst], "facts", r.facts);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static void write_family(const json_t *facts, const char *name, struct metrics *m)
{
	CLEANUP_FREE char *family = io_format("wisp_node_%s", name);
	const json_t *fact;
	size_t i;

	metrics_family(m, family ? family : "", "gauge", name);
	json_array_foreach (facts, i, fact) {
		const char *about = json_string_value(json_object_get(fact, "about"));
		const struct metrics_label label = {"of", about};

		if (!strcmp(json_string_value(json_object_get(fact, "name")), name))
			metrics_value(m, json_number_value(json_object_get(fact, "value")), &label,
				      about != NULL);
	}
}

/* A family has to be in one piece, facts are by node. */
void health_metrics(const json_t *health, struct metrics *m)
{
	const json_t *facts = json_object_get(health, "facts"), *fact;
	json_t *done = json_object();
	size_t i;

	json_array_foreach (facts, i, fact) {
		const char *name = json_string_value(json_object_get(fact, "name"));

		if (!json_object_get(done, name))
			write_family(facts, name, m);
		json_object_set_new(done, name, json_true());
	}
	json_decref(done);
}
