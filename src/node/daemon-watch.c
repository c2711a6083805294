/* SPDX-License-Identifier: Apache-2.0 */
/* What is looked at from time to time: what VMs use, and how the node is. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/account.h"
#include "node/cgroup.h"
#include "node/daemon.h"
#include "node/health.h"
#include "node/lease.h"
#include "node/metrics.h"
#include "node/store.h"
#include "node/topology.h"

#define HEALTH_EVERY 10
#define SECOND_NS 1000000000ull

static int take_record(const struct store_row *row, void *arg)
{
	return json_array_append_new(arg, json_pack("[I, s, s]", (json_int_t)store_int(row, 0),
						    store_text(row, 1), store_text(row, 2)))
		       ? -ENOMEM
		       : 0;
}

/* What its control group says; one without a group keeps what it had. */
static int refresh(struct daemon *d, const json_t *record, struct error *err)
{
	CLEANUP_FREE char *part = io_format("vm-%s", json_string_value(json_array_get(record, 2)));
	struct account_use use = {0};
	struct cgroup_usage group;

	if (!part)
		return error_set(err, -ENOMEM, "out of memory");
	if (!d->p.cgroups ||
	    cgroup_usage(d->p.cgroups, json_string_value(json_array_get(record, 1)), part, &group,
			 NULL))
		return 0;
	use.cpu_us = group.cpu_us;
	use.peak_memory = group.memory_peak;
	return account_update(d->store, json_integer_value(json_array_get(record, 0)), &use,
			      daemon_now(), err);
}

void accounts_refresh(struct daemon *d)
{
	json_t *records = json_array(), *record;
	struct error err;
	size_t i;
	int r = store_each(d->store, take_record, records, &err,
			   "SELECT id, cluster, vm FROM usage WHERE ended IS NULL", "");

	json_array_foreach (records, i, record)
		if (!r)
			r = refresh(d, record, &err);
	json_decref(records);
	if (r)
		log_error(d->p.log, "account", "%s", err.text);
}

static void refresh_accounts(void *arg)
{
	accounts_refresh(arg);
}

static void refresh_health(void *arg)
{
	struct daemon *d = arg;
	json_t *health = NULL;
	struct error err;
	int r = topology_refresh(d->p.topology, &err);

	if (!r)
		r = health_read(d->p.root, d->p.topology, 0, &health, &err);
	if (r) {
		log_error(d->p.log, "health", "%s", err.text);
		return;
	}
	json_decref(d->health);
	d->health = health;
}

int watch_start(struct daemon *d, struct error *err)
{
	int r = loop_add_timer(d->p.loop, refresh_accounts, d, &d->accounts);

	if (!r)
		r = loop_add_timer(d->p.loop, refresh_health, d, &d->healths);
	if (r)
		return error_errno(err, r, "cannot make a timer");
	d->health = json_pack("{s:s, s:[]}", "state", "ok", "facts");
	refresh_health(d);
	loop_set_timer(d->accounts, ACCOUNT_EVERY * SECOND_NS, ACCOUNT_EVERY * SECOND_NS);
	loop_set_timer(d->healths, HEALTH_EVERY * SECOND_NS, HEALTH_EVERY * SECOND_NS);
	return 0;
}

/* -------- metrics -------- */

static int take_int(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static const struct figure {
	const char *name, *help, *sql;
} figures[] = {
	{"wisp_clusters_reserved", "Clusters with resources here that do not run",
	 "SELECT count(*) FROM cluster WHERE state = 'reserved'"},
	{"wisp_clusters_running", "Clusters that run here",
	 "SELECT count(*) FROM cluster WHERE state = 'running'"},
	{"wisp_vms", "VMs with resources here", "SELECT count(*) FROM vm"},
	{"wisp_threads_dedicated", "Hardware threads that a VM has for itself",
	 "SELECT count(*) FROM cpu"},
	{"wisp_memory_claimed_bytes", "Memory that VMs have", "SELECT sum(bytes) FROM memory"},
	{"wisp_node_draining", "1: no new reservations", "SELECT count(*) FROM drain"},
};

int watch_metrics(struct daemon *d, char **ret, struct error *err)
{
	struct metrics *m = metrics_new();
	CLEANUP_FREE char *text = NULL;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		int64_t value = 0;

		if (!r)
			r = store_each(d->store, take_int, &value, err, figures[i].sql, "");
		metrics_family(m, figures[i].name, "gauge", figures[i].help);
		metrics_value(m, (double)value, NULL, 0);
	}
	health_metrics(d->health, m);
	if (metrics_take(m, &text))
		return error_set(err, -ENOMEM, "out of memory");
	if (!r)
		*ret = take_ptr(text);
	return r;
}
