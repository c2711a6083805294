/* SPDX-License-Identifier: Apache-2.0 */
/* Reservations: from their admission to their end. */

#include <errno.h>
#include <string.h>

#include "env/able.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/state.h"
#include "node/account.h"
#include "node/claim.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/lease.h"
#include "node/store.h"

#define SESSION_MIN 16
#define WALLTIME_GRACE 2 /* grace times: its coordinator ends a cluster before, and says why */
#define SECOND_NS 1000000000ull

static const char *cluster_of(const json_t *request)
{
	return json_string_value(json_object_get(request, "cluster"));
}

/* -------- reserve -------- */

static int refuse_if_draining(struct daemon *d, struct error *err)
{
	CLEANUP_FREE char *because = NULL;
	int r = lease_draining(d->store, &because, err);

	if (!r && because)
		r = error_set(err, -EAGAIN, "%s takes nothing new: %s", d->p.name, because);
	return r;
}

static int check_way_out(const struct daemon *d, const json_t *environment, struct error *err)
{
	if (!admit_leads_out(environment))
		return 0;
	if (!d->p.networks)
		return error_set(
			err, -EPERM,
			"network.isolated: no takes root's wispd, and that of %s is a user's",
			d->p.name);
	if (!d->p.outside)
		return error_set(err, -EPERM,
				 "network.isolated: no is not allowed on %s (its administrator has "
				 "not started wispd with --outside)",
				 d->p.name);
	return 0;
}

static int check_vlan(const struct daemon *d, unsigned vlan, struct error *err)
{
	if (!d->p.lan.first && vlan)
		return error_set(err, -EPERM,
				 "network.vlan: %u: VMs on %s of %s are in no VLAN of their own; "
				 "leave it out",
				 vlan, d->p.lan.parent, d->p.name);
	if (!vlan && d->p.lan.first)
		return error_set(err, -EPERM,
				 "network.vlan is missing: VMs on %s of %s have to be in a VLAN, "
				 "from %u to %u",
				 d->p.lan.parent, d->p.name, d->p.lan.first, d->p.lan.last);
	if (vlan < d->p.lan.first || vlan > d->p.lan.last)
		return error_set(err, -EPERM,
				 "network.vlan: %u is not allowed on %s, which has %u to %u for "
				 "clusters",
				 vlan, d->p.name, d->p.lan.first, d->p.lan.last);
	return 0;
}

static int check_lan(const struct daemon *d, const json_t *environment, struct error *err)
{
	unsigned vlan;

	if (!admit_on_lan(environment, &vlan))
		return 0;
	if (!d->p.networks)
		return error_set(
			err, -EPERM,
			"network.kind: macvtap takes root's wispd, and that of %s is a user's",
			d->p.name);
	if (!d->p.lan.parent)
		return error_set(err, -EPERM,
				 "network.kind: macvtap is not allowed on %s (its administrator "
				 "has not started wispd with --macvtap); private is",
				 d->p.name);
	return check_vlan(d, vlan, err);
}

/* What came of a request by reading it. */
struct asked {
	struct claim *claim;
	struct admitted admitted;
};

static int claim_of(struct daemon *d, const struct asker *who, const json_t *request,
		    struct asked *ret, struct error *err)
{
	int r = admit(&d->p.admit, who->facts, request, daemon_now(), &ret->admitted, err);
	const json_t *environment = ret->admitted.environment;
	json_t *json = NULL;

	if (!r)
		r = env_able(environment, err);
	if (!r)
		r = admit_place(&d->p.admit, environment, d->p.labels, err);
	if (!r)
		r = check_way_out(d, environment, err);
	if (!r)
		r = check_lan(d, environment, err);
	if (!r)
		r = admit_claim(environment, cluster_of(request), json_object_get(request, "vms"),
				&json, err);
	if (!r)
		r = claim_parse(json, who->uid, &ret->claim, err);
	json_decref(json);
	return r;
}

/* `numa: mirror` where it means several nodes: a VM would have to see them. */
static int check_nodes(const struct daemon *d, const json_t *environment, const json_t *lease,
		       struct error *err)
{
	const char *numa = json_string_value(json_object_get(environment, "numa"));
	const json_t *vm;
	size_t i;

	if (!numa || strcmp(numa, "mirror") != 0)
		return 0;
	json_array_foreach (json_object_get(lease, "vms"), i, vm)
		if (json_array_size(json_object_get(vm, "nodes")) > 1)
			return error_set(err, -EOPNOTSUPP,
					 "%s: VM %s does not fit into one NUMA node there, and "
					 "this Wisp cannot give it several (numa: mirror): ask for "
					 "fewer CPUs or less memory, or numa: none",
					 d->p.name, json_string_value(json_object_get(vm, "name")));
	return 0;
}

/* More of a cluster that is here: for the same session, and as it was. *ret: it is here. */
static int may_grow(struct daemon *d, const struct asker *who, const struct claim *claim,
		    const json_t *environment, bool *ret, struct error *err)
{
	struct cluster_state state;
	int r = alloc_expire(&d->alloc, daemon_now(), err);

	if (r >= 0)
		r = cluster_read(d->store, claim->cluster, &state, err);
	*ret = !r;
	if (r)
		return r == -ENOENT ? 0 : r;
	if (state.user != who->uid || strcmp(state.session, who->session))
		return error_set(err, -EEXIST,
				 "%s has resources of this node already, of another session",
				 claim->cluster);
	if (state.ending)
		return error_set(err, -ESHUTDOWN, "cluster %s is being ended", claim->cluster);
	return cluster_check_environment(d->store, claim->cluster, environment, err);
}

/* With those that are here already. */
static int check_count(struct daemon *d, const struct claim *claim, const json_t *environment,
		       struct error *err)
{
	json_t *here = NULL, *all = json_object();
	const json_t *name;
	size_t i;
	int r = cluster_vms(d->store, claim->cluster, &here, err);

	json_array_foreach (here, i, name)
		json_object_set_new(all, json_string_value(name), json_true());
	for (i = 0; i < claim->nvms; i++)
		json_object_set_new(all, claim->vms[i].name, json_true());
	if (!r)
		r = admit_count(environment, json_object_size(all), err);
	json_decref(here);
	json_decref(all);
	return r;
}

static void untake(struct daemon *d, const struct claim *claim, bool more, int64_t now)
{
	if (!more)
		alloc_release(&d->alloc, claim->cluster, now, NULL);
	for (unsigned v = 0; more && v < claim->nvms; v++)
		alloc_release_vm(&d->alloc, claim->cluster, claim->vms[v].name, now, NULL);
}

/* Until it has its session it ends by itself: a daemon that is killed here leaves nothing. */
static int take(struct daemon *d, const struct asker *who, const struct asked *asked,
		const json_t *request, json_t **ret, json_t **missing, struct error *err)
{
	const json_t *environment = asked->admitted.environment;
	const struct claim *claim = asked->claim;
	const json_t *image = json_object_get(request, "image");
	int64_t now = daemon_now();
	json_t *lease = NULL;
	bool more = false;
	int r = may_grow(d, who, claim, environment, &more, err);

	if (!r && more)
		r = check_count(d, claim, environment, err);
	if (!r)
		r = alloc_claim(&d->alloc, claim, now, now + d->p.grace, &lease, missing, err);
	if (!r) {
		r = check_nodes(d, environment, lease, err);
		if (!r)
			r = cluster_keep(d->store, claim->cluster, environment,
					 json_string_value(json_object_get(image, "digest")),
					 json_object_get(request, "vms"),
					 asked->admitted.save_every, err);
		if (!r && !more)
			r = lease_assign(d->store, claim->cluster, who->session, err);
		if (r)
			untake(d, claim, more, now);
	}
	if (!r)
		*ret = json_pack("{s:o}", "grants", cluster_grants(lease));
	json_decref(lease);
	return r;
}

/* Who was let off a rule, for whoever asks later. It has its resources already. */
static void note_waivers(struct daemon *d, const struct asked *asked)
{
	const char *rule, *user, *because = NULL, *cluster = asked->claim->cluster;
	json_int_t until;
	json_t *waiver;
	size_t i;

	json_array_foreach (asked->admitted.waivers, i, waiver) {
		CLEANUP_FREE char *text = NULL;
		struct error err;

		json_unpack(waiver, "{s:s, s:s, s:I, s?s}", "rule", &rule, "user", &user, "until",
			    &until, "because", &because);
		text = io_format("rule %s, for %s until %lld: %s", rule, user, (long long)until,
				 because ?: "");
		log_info(d->p.log, "reserve", "%s has a waiver of %s", cluster, text ?: rule);
		if (store_event(d->store, daemon_now(), cluster, NULL, "waived", text ?: rule,
				&err))
			log_error(d->p.log, "reserve", "%s: %s", cluster, err.text);
	}
}

int daemon_reserve(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	struct asked asked = {NULL};
	json_t *missing = NULL;
	int r;

	if (!cluster_of(request))
		return error_set(err, -EINVAL, "\"cluster\" is missing");
	r = refuse_if_draining(d, err);
	if (!r)
		r = claim_of(d, who, request, &asked, err);
	if (!r)
		r = take(d, who, &asked, request, ret, &missing, err);
	if (!r) {
		note_waivers(d, &asked);
		groups_refresh(d);
		part_tell_vms(cluster_known(d, asked.claim->cluster));
	}
	if (asked.admitted.conflicts)
		*ret = json_pack("{s:O}", "conflicts", asked.admitted.conflicts);
	if (missing)
		*ret = json_pack("{s:o}", "missing", missing);
	admitted_done(&asked.admitted);
	claim_destroy(asked.claim);
	return r;
}

/* -------- release -------- */

/* Of which nothing was made: it is given back at once. */
static int release_now(struct daemon *d, const char *cluster, struct error *err)
{
	int r = alloc_release(&d->alloc, cluster, daemon_now(), err);

	if (!r)
		groups_refresh(d);
	return r;
}

void daemon_release(struct daemon *d, struct reply *reply, const json_t *request)
{
	const json_t *vms = json_object_get(request, "vms");
	const char *id = cluster_of(request);
	struct cluster_state state;
	struct cluster *c;
	struct error err = {""};
	int r = id ? cluster_read(d->store, id, &state, &err)
		   : error_set(&err, -EINVAL, "\"cluster\" is missing");

	if (!r && state.user != reply->who.uid && !reply->who.operator)
		r = error_set(&err, -EPERM, "cluster %s is another user's", id);
	if (!r && vms && !state.ending) {
		r = cluster_get(d, id, &c, &err);
		if (!r)
			r = life_release(c, vms, &err);
		reply_send(reply, r, NULL, &err);
		return;
	}
	if (!r && state.made) {
		r = cluster_get(d, id, &c, &err);
		if (!r) {
			end_begin(c, reply);
			return;
		}
	}
	if (!r)
		r = release_now(d, id, &err);
	reply_send(reply, r == -ENOENT ? 0 : r, NULL, &err);
}

/* -------- sessions -------- */

void daemon_keep(struct daemon *d, const struct asker *who)
{
	struct error err;

	if (lease_keep(d->store, who->uid, who->session, &err))
		log_error(d->p.log, "session", "%s", err.text);
}

void daemon_event(struct daemon *d, uid_t uid, const char *session, json_t *event)
{
	struct asker who = {.uid = uid};

	snprintf(who.session, sizeof(who.session), "%s", session);
	peers_tell(d, &who, event);
	trees_tell(d, &who, event);
}

void daemon_leave(struct daemon *d, const struct asker *who)
{
	struct error err;

	if (peers_have(d, who) || trees_have(d, who))
		return;
	if (lease_leave(d->store, who->uid, who->session, daemon_now() + d->p.grace, &err))
		log_error(d->p.log, "session", "%s", err.text);
	daemon_expire(d);
}

int session_check(const char *secret, struct error *err)
{
	if (secret && strlen(secret) >= SESSION_MIN && strlen(secret) < LEASE_SESSION)
		return 0;
	return error_set(err, -EINVAL, "\"session\" has to be a secret of %d to %d bytes",
			 SESSION_MIN, LEASE_SESSION - 1);
}

void daemon_session(struct daemon *d, struct reply *reply, const json_t *request)
{
	const char *secret = json_string_value(json_object_get(request, "session"));
	struct asker before = reply->who;
	struct error err;
	int r = reply->conn ? session_check(secret, &err)
			    : error_set(&err, -EINVAL, "a tree has the session of its join");

	if (!r && strcmp(secret, before.session)) {
		snprintf(reply->asker->session, sizeof(before.session), "%s", secret);
		daemon_keep(d, reply->asker);
		daemon_leave(d, &before);
	}
	reply_send(reply, r, NULL, &err);
}

/* Those of which something was made are ended, which takes its time. */
static int end_due(struct daemon *d, int64_t now, struct error *err)
{
	json_t *due = NULL, *why;
	struct cluster *c;
	const char *id;
	int r = cluster_due(d->store, now, WALLTIME_GRACE * d->p.grace, &due, err);

	json_object_foreach (due, id, why) {
		if (!r)
			r = cluster_get(d, id, &c, err);
		if (r || c->end)
			continue;
		log_info(d->p.log, "reserve", "%s is ended: %s", c->id, json_string_value(why));
		cluster_event(c, json_pack("{s:s, s:O}", "event", "due", "why", why));
		end_begin(c, NULL);
	}
	json_decref(due);
	return r;
}

void daemon_expire(void *daemon)
{
	struct daemon *d = daemon;
	int64_t now = daemon_now(), next = 0;
	struct error err;
	int n = alloc_expire(&d->alloc, now, &err);

	if (n > 0)
		groups_refresh(d);
	if (n >= 0 && end_due(d, now, &err))
		n = -EIO;

	if (n > 0)
		log_info(d->p.log, "reserve", "%d reservation(s) ended: nobody came back", n);
	if (n < 0 || lease_next(d->store, &next, &err)) {
		log_error(d->p.log, "reserve", "%s", err.text);
		next = now + d->p.grace + 1;
	}
	if (next)
		loop_set_timer(d->expiry, next > now ? (next - now) * SECOND_NS : SECOND_NS, 0);
}

/* -------- after a start -------- */

struct gone {
	struct daemon *d;
	json_t *vms;
};

/* A VM that runs holds the lock of its state directory, whoever has started it. */
static int find_gone(const struct store_row *row, void *arg)
{
	struct gone *g = arg;

	if (state_alive(store_text(row, 2)))
		return 0;
	return json_array_append_new(g->vms,
				     json_pack("[s, s]", store_text(row, 0), store_text(row, 1)))
		       ? -ENOMEM
		       : 0;
}

static int release_gone(struct daemon *d, struct error *err)
{
	struct gone g = {.d = d, .vms = json_array()};
	const json_t *vm;
	size_t i;
	int r = store_each(d->store, find_gone, &g, err,
			   "SELECT cluster, name, dir FROM vm WHERE dir IS NOT NULL", "");

	json_array_foreach (g.vms, i, vm)
		if (!r)
			r = alloc_vm_ended(&d->alloc, json_string_value(json_array_get(vm, 0)),
					   json_string_value(json_array_get(vm, 1)), daemon_now(),
					   err);
	json_decref(g.vms);
	return r;
}

int daemon_recover(struct daemon *d, struct error *err)
{
	int r = release_gone(d, err);

	if (!r)
		r = account_recover(d->store, err);
	if (r > 0)
		log_warn(d->p.log, "account", "%d VM(s) ended while no wispd ran", r);
	if (r >= 0)
		r = lease_orphan(d->store, daemon_now() + d->p.grace, err);
	if (!r)
		r = loop_add_timer(d->p.loop, daemon_expire, d, &d->expiry);
	if (!r)
		r = groups_recover(d, err);
	if (!r)
		r = life_recover(d, err);
	if (!r)
		daemon_expire(d);
	return r;
}
