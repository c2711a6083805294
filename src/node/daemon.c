/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon is made of its parts, and taken apart. */

#include "node/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/daemon-cluster.h"
#include "node/launch.h"
#include "node/scrape.h"
#include "node/store.h"
#include "node/topology.h"

int64_t daemon_now(void)
{
	return time(NULL);
}

void daemon_destroy(struct daemon *d)
{
	if (!d)
		return;
	clusters_done(d);
	helper_calls_done(&d->helpers);
	scrape_destroy(d->scrape);
	doors_done(d);
	connects_done(d);
	trees_done(d);
	peers_done(d);
	who_done(d);
	launches_destroy(d->launches);
	loop_remove(&d->looking);
	loop_remove(&d->expiry);
	loop_remove(&d->accounts);
	loop_remove(&d->healths);
	loop_remove(&d->idling);
	json_decref(d->health);
	json_decref(d->suspects);
	store_close(d->store);
	free(d);
}

static int metrics_text(void *daemon, char **ret, struct error *err)
{
	return watch_metrics(daemon, NULL, ret, err);
}

static int serve_metrics(struct daemon *d, struct error *err)
{
	int r = scrape_create(d->p.loop, d->p.metrics, metrics_text, d, &d->scrape, err);

	if (!r && scrape_port(d->scrape))
		log_info(d->p.log, "wispd", "metrics are at port %u", scrape_port(d->scrape));
	return r;
}

int daemon_create(const struct daemon_params *params, struct daemon **ret, struct error *err)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->p = *params;
	d->greeting = (struct greet_params){.loop = d->p.loop,
					    .self = d->p.name,
					    .credentials = d->p.credentials,
					    .daemon = geteuid(),
					    .key = d->p.key,
					    .nkey = d->p.nkey};
	r = store_open(d->p.database, &d->store, err);
	d->alloc = (struct alloc){.store = d->store, .topology = d->p.topology, .host = d->p.host};
	d->helpers.loop = d->p.loop;
	d->part_connect = part_connect;
	if (!r)
		r = watch_start(d, err);
	if (!r && d->p.launcher)
		r = launches_create(d->p.loop, d->p.launcher, &d->launches, err);
	if (!r)
		r = life_start(d, err);
	if (!r)
		r = daemon_recover(d, err);
	if (!r && d->p.metrics)
		r = serve_metrics(d, err);
	if (!r)
		r = doors_open(d, err);
	if (r) {
		daemon_destroy(d);
		return r;
	}
	*ret = d;
	return 0;
}
