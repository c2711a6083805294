/* SPDX-License-Identifier: Apache-2.0 */
/* VMs begin, from their image or from a checkpoint: all that are asked for, or none. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/paths.h"
#include "net/state.h"
#include "part/begin.h"
#include "part/group.h"
#include "part/part.h"
#include "part/resolvers.h"
#include "part/spec.h"
#include "part/volume.h"
#include "part/work.h"
#include "vms/record.h"

#define VMM_MS 60000 /* for a VMM to take commands */

/* -------- in the children -------- */

static int derive_all(const struct part *p, const struct work *w, const struct image *image,
		      json_t *ret, struct error *err)
{
	CLEANUP_FREE char *names = resolvers_read();
	struct spec_host host = {.sys = "/sys", .volumes = p->volumes, .names = names};
	int r = group_cpus(p->setup.cgroup, &host.cpus, err);

	for (size_t i = 0; !r && i < w->nvms; i++) {
		json_t *spec = NULL;

		r = spec_derive(&p->setup, w->vms[i], image, &host, &spec, err);
		if (!r)
			json_object_set_new(ret, w->vms[i]->name, spec);
	}
	return r;
}

int begin_prepare(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct work *w = arg;
	const struct part *p = w->part;
	const char *reference = json_string_value(json_object_get(w->request, "image"));
	const struct vms_network network = part_network(p);
	json_t *specs = json_object();
	struct image image;
	int r;

	if (!reference)
		return error_set(err, -EINVAL, "\"image\" is not the name of an image");
	r = begin_admit(p, reference, &image, err);
	if (r)
		return r;
	r = derive_all(p, w, &image, specs, err);
	image_close(&image);
	if (!r)
		r = vms_expect(&network, true, json_object_get(w->request, "hosts"), err);
	if (!r)
		*ret = specs;
	return r;
}

int begin_vm(const struct begin *b, json_t **config, struct error *err)
{
	const struct vms_network network = part_network(b->part);
	json_t *none = NULL;
	int r = vms_start(b->spec, &network, config, err);

	return r ? r : vms_wait(b->vm->name, false, VMM_MS, &none, err);
}

/* Has its volumes, and starts. */
static int start_one(int talk, void *arg, json_t **ret, struct error *err)
{
	struct begin *b = arg;
	struct args made = {0};
	json_t *config = NULL;
	int r = volumes_make(b->spec, &made, err);

	if (!r) {
		r = begin_vm(b, &config, err);
		if (r)
			volumes_undo(&made);
	}
	if (!r)
		*ret = json_pack("{s:s}", "address", record_text(config, "address"));
	json_decref(config);
	args_done(&made);
	return r;
}

/* A VM of this name may be another cluster's. */
static int is_ours(const struct part *p, const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL;
	int r = vms_hand_over_dir(name, &dir, NULL);

	if (r == -ECHILD) /* ended: there is a record, and no more */
		return 0;
	if (!r)
		r = record_read(dir, RECORD_CONFIG, &config, NULL);
	if (!r && strcmp(record_text(config, "cluster"), p->setup.cluster))
		r = error_set(err, -EBUSY, "VM %s on this node is not of cluster %s", name,
			      p->setup.cluster);
	json_decref(config);
	return r == -EBUSY ? r : 0;
}

static int stop_vm(const struct part *p, const char *name, struct vms_stop *stop, struct error *err)
{
	int r = is_ours(p, name, err);

	if (!r)
		r = vms_stop(name, stop, err);
	if (!r || r == -ENOENT)
		volumes_remove(p->volumes, name);
	return r;
}

/* What had begun ends, as if it never had. */
static int undo_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct begin *b = arg;
	struct vms_stop stop = {.kill = true};
	int r = stop_vm(b->part, b->vm->name, &stop, err);

	return r == -ENOENT ? 0 : r;
}

static int stop_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct begin *b = arg;
	const json_t *timeout = json_object_get(b->request, "timeout");
	struct vms_stop stop = {
		.timeout_ms = timeout ? (unsigned)json_integer_value(timeout) * 1000 : 30000,
		.kill = json_is_true(json_object_get(b->request, "kill")),
		.how = "was not there",
	};
	int r = stop_vm(b->part, b->vm->name, &stop, err);

	if (!r || r == -ENOENT)
		*ret = json_pack("{s:s}", "how", stop.how);
	return r == -ENOENT ? 0 : r;
}

static int leave(int talk, void *arg, json_t **ret, struct error *err)
{
	vms_leave_networks();
	return 0;
}

/* -------- in the part -------- */

static void add_all(struct work *w, errand_fn *fn)
{
	const json_t *specs = json_object_get(w->notes, "specs");

	for (size_t i = 0; i < w->nvms; i++) {
		/* The child has a copy of it. */
		struct begin b = {.part = w->part,
				  .vm = w->vms[i],
				  .request = w->request,
				  .spec = json_object_get(specs, w->vms[i]->name)};

		work_add(w, w->vms[i], fn, &b);
	}
}

static void have_begun(struct work *w)
{
	if (!w->code) {
		work_end(w);
		return;
	}
	add_all(w, undo_one);
	work_go(w, work_end);
}

static void begin_all(struct work *w, errand_fn *fn)
{
	if (w->code) {
		work_end(w);
		return;
	}
	json_object_set(w->notes, "specs", json_object_get(w->values, ""));
	json_object_clear(w->values);
	add_all(w, fn);
	work_go(w, have_begun);
}

static void start_all(struct work *w)
{
	begin_all(w, start_one);
}

static void restore_all(struct work *w)
{
	begin_all(w, restore_one);
}

/*
 * Looked at now: what is known of guests comes later, and a start that finds in the middle that a
 * VM runs would end it, as one that it has begun.
 */
static bool runs(const struct work *w, const struct setup_vm *vm)
{
	enum guest_state state = guest_state(w->part->guests, vm);
	CLEANUP_FREE char *dir = NULL;

	return state == GUEST_STARTING || state == GUEST_READY ||
	       (!paths_run("vm", vm->name, &dir, NULL) && state_alive(dir));
}

static int check_not_running(const struct work *w, struct error *err)
{
	for (const struct work *other = w->part->works; other; other = other->next)
		if (other != w && other->begins)
			return error_set(err, -EBUSY, "VMs of cluster %s are being started already",
					 w->part->setup.cluster);
	for (size_t i = 0; i < w->nvms; i++)
		if (runs(w, w->vms[i]))
			return error_set(err, -EBUSY, "VM %s runs already", w->vms[i]->name);
	return 0;
}

static void begin(struct part *p, json_int_t id, const json_t *request, work_fn *then)
{
	struct work *w = work_create(p, id, request);
	struct error err;
	int r = w ? check_not_running(w, &err) : 0;

	if (!w)
		return;
	if (r) {
		work_fail(w, r, err.text);
		work_end(w);
		return;
	}
	w->begins = true;
	work_add(w, NULL, begin_prepare, w);
	work_go(w, then);
}

void part_start(struct part *p, json_int_t id, const json_t *request)
{
	begin(p, id, request, start_all);
}

void part_restore(struct part *p, json_int_t id, const json_t *request)
{
	begin(p, id, request, restore_all);
}

/* -------- their end -------- */

static void have_stopped(struct work *w)
{
	json_object_del(w->values, "");
	work_end(w);
}

/* A network that is nobody's else ends with its last VM. */
static void leave_network(struct work *w)
{
	if (!w->part->setup.made)
		work_add(w, NULL, leave, NULL);
	work_go(w, have_stopped);
}

static bool is_named(const json_t *names, const char *vm)
{
	const json_t *name;
	size_t i;

	json_array_foreach (names, i, name)
		if (json_is_string(name) && !strcmp(json_string_value(name), vm))
			return true;
	return false;
}

/* Whether it is about one of the VMs that are to be stopped. */
static bool concerns(const struct work *w, const json_t *stop)
{
	const json_t *names = json_object_get(stop, "vms");

	for (size_t i = 0; names && i < w->nvms; i++)
		if (is_named(names, w->vms[i]->name))
			return true;
	return !names;
}

/* What begins does not begin any more when the VMs are ended. */
static bool cancel_beginnings(struct part *p, const json_t *stop)
{
	bool any = false;

	for (struct work *w = p->works; w; w = w->next) {
		if (!w->begins || !concerns(w, stop))
			continue;
		work_cancel(w, "the VMs are stopped");
		any = true;
	}
	return any;
}

void part_stop(struct part *p, json_int_t id, const json_t *request)
{
	struct work *w;

	part_save_stop(p);
	if (cancel_beginnings(p, request)) {
		json_array_append(p->stops, (json_t *)request);
		return;
	}
	w = work_create(p, id, request);
	if (!w)
		return;
	add_all(w, stop_one);
	work_go(w, leave_network);
}
