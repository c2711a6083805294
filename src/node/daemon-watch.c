/* SPDX-License-Identifier: Apache-2.0 */
/* What is looked at from time to time, and told as metrics. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/account.h"
#include "node/daemon.h"
#include "node/health.h"
#include "node/lease.h"
#include "node/metrics.h"
#include "node/store.h"
#include "node/topology.h"

#define HEALTH_EVERY 10
#define SECOND_NS 1000000000ull

static void refresh_accounts(void *arg)
{
	accounts_refresh(arg);
	usages_ask(arg);
	daemon_expire(arg); /* a walltime may be over */
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

/* -------- whether anybody needs it -------- */

static int take_int(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static bool is_needed(struct daemon *d)
{
	int64_t clusters = 1;
	struct error err;

	if (d->peers || d->trees)
		return true;
	return store_each(d->store, take_int, &clusters, &err, "SELECT count(*) FROM cluster",
			  "") ||
	       clusters;
}

static void look_whether_needed(void *arg)
{
	struct daemon *d = arg;
	uint64_t now = io_now_ns();

	if (is_needed(d))
		d->idle_ns = 0;
	else if (!d->idle_ns)
		d->idle_ns = now;
	else if (now - d->idle_ns >= d->p.idle * SECOND_NS) {
		log_info(d->p.log, "wispd", "nobody has needed it for %u s", d->p.idle);
		loop_stop(d->p.loop);
	}
}

int watch_start(struct daemon *d, struct error *err)
{
	int r = loop_add_timer(d->p.loop, refresh_accounts, d, &d->accounts);

	if (!r)
		r = loop_add_timer(d->p.loop, refresh_health, d, &d->healths);
	if (!r && d->p.idle)
		r = loop_add_timer(d->p.loop, look_whether_needed, d, &d->idling);
	if (r)
		return error_errno(err, r, "cannot make a timer");
	if (d->idling)
		loop_set_timer(d->idling, SECOND_NS, SECOND_NS);
	d->health = json_pack("{s:s, s:[]}", "state", "ok", "facts");
	refresh_health(d);
	loop_set_timer(d->accounts, ACCOUNT_EVERY * SECOND_NS, ACCOUNT_EVERY * SECOND_NS);
	loop_set_timer(d->healths, HEALTH_EVERY * SECOND_NS, HEALTH_EVERY * SECOND_NS);
	return 0;
}

/* -------- metrics -------- */

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

int watch_metrics(struct daemon *d, const struct asker *who, char **ret, struct error *err)
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
	if (!r)
		r = account_metrics(d, who, m, err);
	health_metrics(d->health, m);
	if (metrics_take(m, &text))
		return error_set(err, -ENOMEM, "out of memory");
	if (!r)
		*ret = take_ptr(text);
	return r;
}
