/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a cluster on this node: its part stops the VMs, then whatever is left of the keeper is
 * stopped as the user, then everything in the control group and the network is killed and both are
 * removed. Only then its resources are others'. Each step is fine when there is nothing to do, so
 * an end that was cut off is begun anew; one that cannot come to its end is tried again.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "node/account.h"
#include "node/alloc.h"
#include "node/cgroup.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"

#define STOP_NS 10000000000ull /* that the part has to stop VMs in order */
#define USER_NS 30000000000ull /* for programs that run as the user, who can stop them */
#define SOON_NS 200000000ull   /* once: a helper that was killed */
#define AGAIN_NS 10000000000ull

enum step {
	STEP_STOP,
	STEP_KEEPER,
	STEP_CLEAN,
};

struct waiting {
	struct waiting *next;
	struct reply *reply;
};

struct cluster_end {
	struct cluster *c;
	struct waiting *waiting;
	struct helper_call *call;
	struct loop_source *timer;
	enum step step;
	unsigned tries; /* of a helper */
};

static void go(struct cluster_end *e);

static void answer(struct cluster_end *e, int code, const struct error *err)
{
	while (e->waiting) {
		struct waiting *w = e->waiting;

		e->waiting = w->next;
		reply_send(w->reply, code, NULL, err);
		free(w);
	}
}

void end_destroy(struct cluster *c)
{
	struct cluster_end *e = c->end;
	struct error err;

	if (!e)
		return;
	c->end = NULL;
	error_set(&err, -ESHUTDOWN, "wispd ends; the next one goes on with this");
	answer(e, -ESHUTDOWN, &err);
	helper_forget(&e->call);
	loop_remove(&e->timer);
	free(e);
}

/* -------- its last step -------- */

/* In a folder of the user's, which nobody can put another in the place of. */
static void remove_log(const struct cluster *c)
{
	CLEANUP_FREE char *run = cluster_run_folder(c->d, c->user);
	CLEANUP_FREE char *log = run ? io_format("%s/%s.log", run, c->id) : NULL;

	if (log)
		unlink(log);
}

static void finish(struct cluster_end *e)
{
	struct cluster *c = e->c;
	struct daemon *d = c->d;
	struct error err = {""};
	int r = account_close(d->store, c->id, NULL, "released", daemon_now(), &err);

	if (!r)
		r = alloc_release(&d->alloc, c->id, daemon_now(), &err);
	remove_log(c);
	groups_gone(d);
	answer(e, r, &err);
	if (r) {
		loop_set_timer(e->timer, AGAIN_NS, 0);
		return;
	}
	log_info(d->p.log, "reserve", "%s has ended", c->id);
	cluster_destroy(c);
}

/* -------- steps -------- */

static void on_helper(void *arg, int code, const char *reason)
{
	struct cluster_end *e = arg;
	struct error err;

	e->call = NULL;
	if (code)
		log_error(e->c->d->p.log, "end", "%s: %s", e->c->id, reason);
	if (code && !e->tries++) {
		loop_set_timer(e->timer, SOON_NS, 0);
	} else if (e->step == STEP_KEEPER) {
		e->step = STEP_CLEAN;
		e->tries = 0;
		go(e);
	} else if (code) {
		error_set(&err, code, "%s", reason);
		answer(e, code, &err);
		loop_set_timer(e->timer, AGAIN_NS, 0);
	} else {
		finish(e);
	}
}

static json_t *keeper_job(struct cluster *c, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	json_t *argv, *job, *vms = NULL;

	if (paths_program("wisp-keeper", &program, err) ||
	    cluster_all_vms(c->d->store, c->id, &vms, err))
		return NULL;
	argv = json_pack("[s, s, s]", program, "end", c->id);
	json_array_extend(argv, vms);
	json_decref(vms);
	job = cluster_become(c, "keeper", argv);
	json_object_del(job, "devices"); /* it starts no VM */
	/* Not where there is no CPU for it: this has to be done. */
	if (group_make(c, err) == -ENOSPC)
		json_object_del(job, "cgroups");
	return job;
}

/* Devices that are not known would stay the user's, and be given to the next one: no job then. */
static json_t *clean_job(const struct cluster *c, struct error *err)
{
	CLEANUP_FREE char *path = cluster_network_file(c);
	json_t *devices = NULL;

	if (cluster_devices(c->d->store, c->id, &devices, err))
		return NULL;
	return json_pack("{s:s, s:s, s:s*, s:s*, s:o*}", "op", "clean", "cluster", c->id, "cgroups",
			 groups_usable(c->d) ? c->d->p.cgroups : NULL, "network", path, "devices",
			 devices);
}

/* Late: its time was over. */
static void on_stopped(void *arg, int code, const char *reason, json_t *answer)
{
	struct cluster *c = arg;

	if (!c->end || c->end->step != STEP_STOP)
		return;
	if (code)
		log_warn(c->d->p.log, "end", "%s: the part: %s", c->id, reason);
	c->end->step = STEP_KEEPER;
	part_end(c);
	go(c->end);
}

static void on_timer(void *arg)
{
	struct cluster_end *e = arg;

	if (e->c->making || e->call) {
		log_warn(e->c->d->p.log, "end",
			 "%s: wisp-keeper does not come to its end, and is killed", e->c->id);
		if (e->c->making) {
			network_give_up(e->c);
		} else {
			e->tries++;
			helper_kill(e->call);
		}
		return;
	}
	if (e->step == STEP_STOP) {
		log_warn(e->c->d->p.log, "end", "%s: the part does not stop its VMs", e->c->id);
		e->step = STEP_KEEPER;
		part_end(e->c);
	}
	go(e);
}

static bool ask_part(struct cluster_end *e)
{
	json_t *request;
	int r;

	if (!part_is_there(e->c))
		return false;
	request = json_pack("{s:s, s:s, s:b}", "op", "stop", "cluster", e->c->id, "kill", 1);
	r = part_ask(e->c, request, on_stopped, e->c, NULL);
	json_decref(request);
	if (!r)
		loop_set_timer(e->timer, STOP_NS, 0);
	return !r;
}

static void go(struct cluster_end *e)
{
	static const struct helper_ops ops = {on_helper, NULL};
	struct error err = {"out of memory"};
	json_t *job;
	int r;

	if (e->step == STEP_STOP && ask_part(e))
		return;
	loop_set_timer(e->timer, 0, 0);
	if (e->step == STEP_STOP) {
		part_end(e->c);
		e->step = STEP_KEEPER;
	}
	/* All that runs, before what it leaves is swept. */
	if (e->step == STEP_KEEPER && groups_usable(e->c->d))
		cgroup_kill(e->c->d->p.cgroups, e->c->id, NULL, NULL);
	job = e->step == STEP_KEEPER ? keeper_job(e->c, &err) : clean_job(e->c, &err);
	r = job ? helper_start(&e->c->d->helpers, job, -1, &ops, e, &e->call, &err) : -ENOMEM;
	json_decref(job);
	if (!r && e->step == STEP_KEEPER)
		loop_set_timer(e->timer, USER_NS, 0);
	if (!r)
		return;
	log_error(e->c->d->p.log, "end", "%s: %s", e->c->id, err.text);
	answer(e, r, &err);
	loop_set_timer(e->timer, AGAIN_NS, 0);
}

void end_go_on(struct cluster *c)
{
	if (c->end && !c->end->call)
		go(c->end);
}

/* -------- its beginning -------- */

static int create(struct cluster *c, struct error *err)
{
	struct cluster_end *e = calloc(1, sizeof(*e));
	int r = e ? loop_add_timer(c->d->p.loop, on_timer, e, &e->timer) : -ENOMEM;

	if (r) {
		free(e);
		return error_errno(err, r, "cannot end %s", c->id);
	}
	e->c = c;
	c->end = e;
	return 0;
}

static int wait_for(struct cluster *c, struct reply *reply, struct error *err)
{
	struct waiting *w = reply ? malloc(sizeof(*w)) : NULL;

	if (!reply)
		return 0;
	if (!w)
		return error_set(err, -ENOMEM, "out of memory");
	*w = (struct waiting){c->end->waiting, reply};
	c->end->waiting = w;
	return 0;
}

void end_begin(struct cluster *c, struct reply *reply)
{
	struct error err;
	bool fresh = !c->end;
	int r = cluster_set_ending(c->d->store, c->id, &err);

	if (!r && fresh)
		r = create(c, &err);
	if (!r) {
		accounts_refresh(c->d);
		r = wait_for(c, reply, &err);
	}
	if (r) {
		log_error(c->d->p.log, "end", "%s: %s", c->id, err.text);
		if (reply)
			reply_send(reply, r, NULL, &err);
	}
	if (c->end && fresh && c->making)
		loop_set_timer(c->end->timer, USER_NS, 0);
	else if (c->end && fresh)
		go(c->end);
}
