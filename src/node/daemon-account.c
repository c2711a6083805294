/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What VMs use, into their records while they run: CPU time and memory from their control groups,
 * exits and bytes from what their VMMs count, which the parts ask them.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "node/account.h"
#include "node/cgroup.h"
#include "node/daemon-cluster.h"
#include "node/metrics.h"
#include "node/store.h"

/* [id, cluster, vm] of an open record. */
static int take_record(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_pack("[I, s, s]", (json_int_t)store_int(row, 0),
						    store_text(row, 1), store_text(row, 2)))
		       ? -ENOMEM
		       : 0;
}

static int open_records(struct daemon *d, const char *cluster, json_t **ret, struct error *err)
{
	json_t *list = json_array();
	int r = store_each(d->store, take_record, list, err,
			   "SELECT id, cluster, vm FROM usage WHERE ended IS NULL "
			   "AND (?1 IS NULL OR cluster = ?1)",
			   "t", cluster);

	if (r) {
		json_decref(list);
		return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
	}
	*ret = list;
	return 0;
}

static const char *text_at(const json_t *record, size_t i)
{
	return json_string_value(json_array_get(record, i));
}

/* -------- control groups -------- */

/* One without a group was seen, at least. */
static int refresh(struct daemon *d, const json_t *record, struct error *err)
{
	CLEANUP_FREE char *part = io_format("vm-%s", text_at(record, 2));
	struct account_use use = {
		.cpu_us = ACCOUNT_UNKNOWN, .exits = ACCOUNT_UNKNOWN, .bytes = ACCOUNT_UNKNOWN};
	struct cgroup_usage group;

	if (!part)
		return error_set(err, -ENOMEM, "out of memory");
	if (d->p.cgroups && !cgroup_usage(d->p.cgroups, text_at(record, 1), part, &group, NULL)) {
		use.cpu_us = group.cpu_us;
		use.peak_memory = group.memory_peak;
	}
	return account_update(d->store, json_integer_value(json_array_get(record, 0)), &use,
			      daemon_now(), err);
}

void accounts_refresh(struct daemon *d)
{
	json_t *records = NULL, *record;
	struct error err;
	size_t i;
	int r = open_records(d, NULL, &records, &err);

	json_array_foreach (records, i, record)
		if (!r)
			r = refresh(d, record, &err);
	json_decref(records);
	if (r)
		log_error(d->p.log, "account", "%s", err.text);
}

/* -------- counters of VMMs -------- */

static int note_usage(struct daemon *d, const json_t *record, const json_t *stats,
		      struct error *err)
{
	struct account_use use = {.cpu_us = ACCOUNT_UNKNOWN};

	if (!json_is_object(stats))
		return 0;
	account_read(stats, &use);
	return account_update(d->store, json_integer_value(json_array_get(record, 0)), &use,
			      daemon_now(), err);
}

struct asked {
	struct cluster *c;
	part_fn *then;
	void *arg;
};

/* A part that does not know it leaves these figures out. */
static void on_usage(void *arg, int code, const char *reason, json_t *answer)
{
	struct asked *asked = arg;
	struct cluster *c = asked->c;
	const json_t *value = json_object_get(answer, "value");
	json_t *records = NULL, *record;
	struct error err;
	size_t i;
	int r = code ? 0 : open_records(c->d, c->id, &records, &err);

	json_array_foreach (records, i, record)
		if (!r)
			r = note_usage(c->d, record, json_object_get(value, text_at(record, 2)),
				       &err);
	json_decref(records);
	if (r)
		log_error(c->d->p.log, "account", "%s", err.text);
	if (asked->then)
		asked->then(asked->arg, code, reason, answer);
	free(asked);
}

/* The part answers all that it was asked before its cluster goes. */
int usage_ask(struct cluster *c, part_fn *then, void *arg, struct error *err)
{
	json_t *request = json_pack("{s:s}", "op", "usage");
	struct asked *asked = malloc(sizeof(*asked));
	int r = request && asked ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (!r) {
		*asked = (struct asked){.c = c, .then = then, .arg = arg};
		r = part_ask(c, request, on_usage, asked, err);
	}
	if (r)
		free(asked);
	json_decref(request);
	return r;
}

void usages_ask(struct daemon *d)
{
	for (struct cluster *c = d->clusters; c; c = c->next)
		if (!c->end && part_is_there(c))
			usage_ask(c, NULL, NULL, NULL);
}

/* -------- metrics -------- */

static const struct figure {
	const char *name, *type, *help, *sql;
} figures[] = {
	{"wisp_cluster_vms", "gauge", "VMs of a cluster that run here", "count(*)"},
	{"wisp_cluster_cpu_seconds_total", "counter", "CPU time of its VMs that run",
	 "sum(cpu_us) / 1000000"},
	{"wisp_cluster_memory_peak_bytes", "gauge", "The most memory that they had, added up",
	 "sum(peak_memory)"},
	{"wisp_cluster_exits_total", "counter", "Exits of their vCPUs", "sum(exits)"},
	{"wisp_cluster_bytes_total", "counter", "Bytes through their devices", "sum(bytes)"},
};

static int add_figure(const struct store_row *row, void *arg)
{
	char user[16];
	struct metrics_label labels[] = {{"cluster", store_text(row, 0)}, {"user", user}};

	snprintf(user, sizeof(user), "%lld", (long long)store_int(row, 1));
	metrics_value(arg, (double)store_int(row, 2), labels, ARRAY_SIZE(labels));
	return 0;
}

int account_metrics(struct daemon *d, const struct asker *who, struct metrics *m, struct error *err)
{
	int64_t user = who && !who->operator? (int64_t)who->uid : - 1;
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(figures); i++) {
		CLEANUP_FREE char *sql =
			io_format("SELECT cluster, user, %s FROM usage WHERE ended IS NULL "
				  "AND (?1 < 0 OR user = ?1) GROUP BY cluster, user",
				  figures[i].sql);

		metrics_family(m, figures[i].name, figures[i].type, figures[i].help);
		r = sql ? store_each(d->store, add_figure, m, err, sql, "i", user)
			: error_set(err, -ENOMEM, "out of memory");
	}
	return r;
}
