/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs from their start to their end: that they run is known from the cluster's part, that they have
 * ended from the part or, when that cannot tell, from the lock of their state directory.
 */

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "net/state.h"
#include "node/account.h"
#include "node/alloc.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/store.h"
#include "node/topology.h"

#define LOOK_NS 2000000000ull
#define HOW_MAX 64

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* -------- a VM runs -------- */

static char *dir_of(const struct daemon *d, uid_t user, const char *vm)
{
	CLEANUP_FREE char *run = cluster_run_folder(d, user);
	char *dir = NULL;

	if (run)
		return io_format("%s/vm/%s", run, vm);
	return paths_run("vm", vm, &dir, NULL) ? NULL : dir;
}

static const json_t *find_vm(const json_t *lease, const char *name)
{
	const json_t *vm;
	size_t i;

	json_array_foreach (json_object_get(lease, "vms"), i, vm)
		if (!strcmp(text_of(vm, "name"), name))
			return vm;
	return NULL;
}

static unsigned cores_of(const struct topology *t, const json_t *vm)
{
	unsigned n = 0;
	cpu_set_t cpus;

	if (!json_is_true(json_object_get(vm, "dedicated")) ||
	    parse_cpulist(text_of(vm, "cpus"), &cpus, NULL))
		return 0;
	for (unsigned i = 0; i < t->ncores; i++)
		n += CPU_ISSET(t->cores[i].cpus[0], &cpus) != 0;
	return n;
}

static int begin_record(struct cluster *c, const json_t *vm, struct error *err)
{
	struct daemon *d = c->d;
	struct account_vm record = {
		.cluster = c->id,
		.vm = text_of(vm, "name"),
		.user = c->user,
		.cpus = (unsigned)json_integer_value(json_object_get(vm, "vcpus")),
		.cores = cores_of(d->p.topology, vm),
		.devices = (unsigned)json_array_size(json_object_get(vm, "devices"))};
	const json_t *node;
	int64_t id;
	size_t i;

	json_array_foreach (json_object_get(vm, "nodes"), i, node)
		record.memory += (uint64_t)json_integer_value(json_object_get(node, "memory"));
	id = account_begin(d->store, &record, daemon_now(), err);
	return id < 0 ? (int)id : 0;
}

static int note_vm(struct cluster *c, const json_t *lease, const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = dir_of(c->d, c->user, name);
	const json_t *vm = find_vm(lease, name);
	int r;

	if (!vm)
		return 0; /* it has ended meanwhile */
	r = dir ? cluster_set_dir(c->d->store, c->id, name, dir, err)
		: error_set(err, -ENOMEM, "out of memory");
	if (!r && !account_is_open(c->d->store, c->id, name))
		r = begin_record(c, vm, err);
	group_vm_started(c, name);
	return r;
}

/* It runs without an end while somebody is there. */
static int confirm(struct cluster *c, struct error *err)
{
	struct asker who = {.uid = c->user};
	struct cluster_state state;
	int r = alloc_confirm(&c->d->alloc, c->id, daemon_now(), err);

	if (!r)
		r = cluster_read(c->d->store, c->id, &state, err);
	if (r)
		return r;
	snprintf(who.session, sizeof(who.session), "%s", state.session);
	daemon_leave(c->d, &who);
	return 0;
}

/* When the first VM comes here its time to be saved begins. */
static int note_first(struct cluster *c, struct error *err)
{
	json_t *vms = NULL;
	int r = cluster_vms_running(c->d->store, c->id, &vms, err);

	if (!r && !json_array_size(vms))
		r = cluster_set_saved(c->d->store, c->id, daemon_now(), err);
	json_decref(vms);
	return r;
}

static void vms_run(struct cluster *c, const json_t *names)
{
	json_t *lease = NULL, *name;
	struct error err;
	size_t i;
	int r = alloc_describe(&c->d->alloc, c->id, &lease, &err);

	if (!r)
		r = note_first(c, &err);

	json_array_foreach ((json_t *)names, i, name)
		if (!r && json_is_string(name))
			r = note_vm(c, lease, json_string_value(name), &err);
	if (!r)
		r = confirm(c, &err);
	json_decref(lease);
	if (r)
		log_error(c->d->p.log, "vms", "%s: %s", c->id, err.text);
}

/* Those that the request names; without names it is about all. */
static json_t *named(struct cluster *c, const json_t *request)
{
	json_t *list = json_object_get(request, "vms"), *vm = json_object_get(request, "vm");

	if (json_is_array(list))
		return json_incref(list);
	if (json_is_string(vm))
		return json_pack("[O]", vm);
	return cluster_vms(c->d->store, c->id, &list, NULL) ? json_array() : list;
}

/* value: {VM: checkpoint}. What of it stays is the user's affair; that it was made is a rule's. */
static void note_saved(struct cluster *c, const json_t *value)
{
	json_t *vms = NULL, *name;
	struct error err;
	size_t i;
	int r = cluster_vms_running(c->d->store, c->id, &vms, &err);
	bool all = true;

	json_array_foreach (vms, i, name)
		all = all &&
		      json_object_get(json_object_get(value, json_string_value(name)), "epoch");
	if (!r && all)
		r = cluster_set_saved(c->d->store, c->id, daemon_now(), &err);
	json_decref(vms);
	if (r)
		log_error(c->d->p.log, "vms", "%s: %s", c->id, err.text);
}

void life_done(struct cluster *c, const json_t *request, const json_t *value)
{
	static const char *const starting[] = {"start", "restore", "receive"};
	json_t *names;

	if (!strcmp(text_of(request, "op"), "save") && !strcmp(text_of(request, "step"), "commit"))
		note_saved(c, value);
	for (size_t i = 0; i < ARRAY_SIZE(starting); i++) {
		if (strcmp(text_of(request, "op"), starting[i]))
			continue;
		names = named(c, request);
		vms_run(c, names);
		json_decref(names);
	}
}

/* -------- a VM has ended -------- */

static void vm_gone(struct cluster *c, const char *vm, const char *how, const json_t *end)
{
	struct daemon *d = c->d;
	struct error err;
	int r;

	accounts_refresh(d);
	r = account_close(d->store, c->id, vm, how, daemon_now(), &err);
	if (!r)
		r = alloc_vm_ended(&d->alloc, c->id, vm, daemon_now(), &err);
	if (r)
		log_error(d->p.log, "vms", "%s: %s", vm, err.text);
	group_vm_ended(c, vm);
	groups_refresh(d);
	json_object_del(c->ready, vm);
	cluster_event(c, json_pack("{s:s, s:s, s:O?}", "event", "vm-ended", "vm", vm, "end", end));
}

/* The user's word is not enough to give away what the VM had. */
static bool runs(struct cluster *c, const char *vm)
{
	CLEANUP_FREE char *dir = dir_of(c->d, c->user, vm);

	return dir && state_alive(dir);
}

static bool is_ours(struct cluster *c, const char *vm)
{
	json_t *all = NULL, *name;
	bool found = false;
	size_t i;

	if (cluster_vms(c->d->store, c->id, &all, NULL))
		return false;
	json_array_foreach (all, i, name)
		found = found || !strcmp(json_string_value(name), vm);
	json_decref(all);
	return found;
}

static int check_release(struct cluster *c, const json_t *names, struct error *err)
{
	const json_t *name;
	size_t i;

	if (!json_is_array(names))
		return error_set(err, -EINVAL, "\"vms\" has to be a list of names");
	json_array_foreach (names, i, name) {
		if (!json_is_string(name))
			return error_set(err, -EINVAL, "a name in \"vms\" is no text");
		if (is_ours(c, json_string_value(name)) && runs(c, json_string_value(name)))
			return error_set(err, -EBUSY, "VM %s runs here: stop it first",
					 json_string_value(name));
	}
	return 0;
}

static int release_one(struct cluster *c, const char *vm, struct error *err)
{
	struct daemon *d = c->d;
	int r = 0;

	if (account_is_open(d->store, c->id, vm)) {
		accounts_refresh(d);
		r = account_close(d->store, c->id, vm, "released", daemon_now(), err);
	}
	group_vm_ended(c, vm);
	return r ? r : alloc_vm_ended(&d->alloc, c->id, vm, daemon_now(), err);
}

int life_release(struct cluster *c, const json_t *names, struct error *err)
{
	int r = check_release(c, names, err);
	const json_t *name;
	size_t i;

	json_array_foreach (names, i, name)
		if (!r && is_ours(c, json_string_value(name)))
			r = release_one(c, json_string_value(name), err);
	if (r)
		return r;
	groups_refresh(c->d);
	part_tell_vms(c);
	return 0;
}

static void on_vm_ended(struct cluster *c, const json_t *event)
{
	const char *vm = text_of(event, "vm");
	const json_t *end = json_object_get(event, "end");
	char how[HOW_MAX];

	snprintf(how, sizeof(how), "%s", text_of(end, "reason"));
	if (is_ours(c, vm) && !runs(c, vm))
		vm_gone(c, vm, how[0] ? how : "ended", end);
}

/* Whoever comes back may have missed it. */
static void note_ready(struct cluster *c, const json_t *event)
{
	json_t *times = json_object_get(event, "times");

	if (!is_ours(c, text_of(event, "vm")))
		return;
	if (!c->ready)
		c->ready = json_object();
	json_object_set_new(c->ready, text_of(event, "vm"),
			    times ? json_incref(times) : json_object());
}

void life_event(struct cluster *c, const json_t *event)
{
	if (!strcmp(text_of(event, "event"), "vm-ended")) {
		on_vm_ended(c, event);
		return;
	}
	if (!strcmp(text_of(event, "event"), "ready"))
		note_ready(c, event);
	cluster_event(c, json_deep_copy(event));
}

int daemon_vms(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
	       struct error *err)
{
	json_t *names = NULL, *name;
	struct cluster *c = NULL;
	size_t i;
	int r = cluster_of_request(d, who, request, &c, err);

	if (!r)
		r = cluster_vms(d->store, c->id, &names, err);
	if (r)
		return r;
	*ret = json_object();
	json_array_foreach (names, i, name) {
		const char *vm = json_string_value(name);
		json_t *times = json_object_get(c->ready, vm);

		json_object_set_new(
			*ret, vm, json_pack("{s:b, s:O*}", "ready", times != NULL, "times", times));
	}
	json_decref(names);
	return 0;
}

/* -------- looking -------- */

static bool is_suspect(const struct daemon *d, const json_t *vm)
{
	const json_t *other;
	size_t i;

	json_array_foreach (d->suspects, i, other)
		if (json_equal(vm, other))
			return true;
	return false;
}

/* Twice: the part tells it better, and has the time to. */
static void look(void *arg)
{
	struct daemon *d = arg;
	json_t *all = NULL, *suspects = json_array(), *vm;
	struct cluster *c;
	struct error err;
	size_t i;

	if (cluster_running(d->store, &all, &err))
		log_error(d->p.log, "vms", "%s", err.text);
	json_array_foreach (all, i, vm) {
		const char *cluster = json_string_value(json_array_get(vm, 0));

		if (state_alive(json_string_value(json_array_get(vm, 2))))
			continue;
		if (!is_suspect(d, vm))
			json_array_append(suspects, vm);
		else if (!cluster_get(d, cluster, &c, &err) && !c->end)
			vm_gone(c, json_string_value(json_array_get(vm, 1)), "lost", NULL);
	}
	json_decref(all);
	json_decref(d->suspects);
	d->suspects = suspects;
}

int life_start(struct daemon *d, struct error *err)
{
	int r = loop_add_timer(d->p.loop, look, d, &d->looking);

	if (!r)
		r = loop_set_timer(d->looking, LOOK_NS, LOOK_NS);
	d->suspects = json_array();
	return r ? error_errno(err, r, "cannot make a timer") : 0;
}

/* -------- after a start -------- */

/* VMs whose start was done while the daemon was killed. */
static int find_unknown(struct daemon *d, struct error *err)
{
	json_t *all = NULL, *vm;
	struct cluster *c;
	size_t i;
	int r = cluster_unknown(d->store, &all, err);

	json_array_foreach (all, i, vm) {
		json_t *name = json_array_get(vm, 1);

		if (!r)
			r = cluster_get(d, json_string_value(json_array_get(vm, 0)), &c, err);
		if (!r && runs(c, json_string_value(name))) {
			json_t *names = json_pack("[O]", name);

			vms_run(c, names);
			json_decref(names);
		}
	}
	json_decref(all);
	return r;
}

/* Where VMs run somebody has to hear of them. */
static int start_parts(struct daemon *d, struct error *err)
{
	json_t *all = NULL, *vm;
	struct cluster *c;
	struct error why;
	size_t i;
	int r = cluster_running(d->store, &all, err);

	json_array_foreach (all, i, vm) {
		if (!r)
			r = cluster_get(d, json_string_value(json_array_get(vm, 0)), &c, err);
		if (!r && !c->end && part_start(c, &why))
			log_error(d->p.log, "part", "%s: %s", c->id, why.text);
	}
	json_decref(all);
	return r;
}

int life_recover(struct daemon *d, struct error *err)
{
	int r = find_unknown(d, err);

	return r ? r : start_parts(d, err);
}
