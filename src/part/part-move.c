/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs that go to another node, or come from one: wisp vm migrate and wisp vm receive as errands
 * (docs/formats/receive.md), with the other side's address and token from the coordinator.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/busy.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "mover/exit-code.h"
#include "part/begin.h"
#include "part/part.h"
#include "part/work.h"
#include "vms/control.h"
#include "vms/handover.h"
#include "vms/hosts.h"
#include "vms/record.h"

#define TOKEN_DIGITS 64
#define ABORT_MS 15000
#define LOOK_MS 100
#define LOOKS 50

struct move {
	const struct part *part;
	const json_t *request;
	const char *name;
};

/* -------- what both have in common -------- */

static bool is_set(const json_t *request, const char *key)
{
	return json_is_true(json_object_get(request, key));
}

/* One of the VMs, and a token, when the hand-over begins with that. */
static int check(const struct part *p, const json_t *request, struct error *err)
{
	const char *name = record_text(request, "vm"), *token = record_text(request, "token");

	if (!setup_find(&p->setup, name))
		return error_set(err, -ENOENT, "cluster %s has no VM %s on this node",
				 p->setup.cluster, name);
	if (!is_set(request, "again") && !is_set(request, "abort") &&
	    (strlen(token) != TOKEN_DIGITS || strspn(token, "0123456789abcdef") != TOKEN_DIGITS))
		return error_set(err, -EINVAL, "\"token\" is not 64 hexadecimal digits");
	return 0;
}

/* A work for that one VM. NULL: it was refused. */
static struct work *move_create(struct part *p, json_int_t id, const json_t *request)
{
	struct error err;
	json_t *mine;
	struct work *w;
	int r = check(p, request, &err);

	if (r) {
		part_refuse(p, id, r, err.text, NULL);
		return NULL;
	}
	mine = json_copy((json_t *)request);
	json_object_set_new(mine, "vms", json_pack("[s]", record_text(request, "vm")));
	w = work_create(p, id, mine);
	json_decref(mine);
	return w;
}

/* The exit codes of a hand-over: 0, or -errno, and for those that are not settled *ret says so. */
static int conclude(int code, json_t **ret, struct error *err)
{
	const char *word = code == EXIT_UNDECIDED ? "undecided"
			   : code == EXIT_UNTOLD  ? "here"
			   : code == EXIT_STAYED  ? "away"
						  : NULL;

	if (word)
		*ret = json_pack("{s:s}", "unsettled", word);
	if (word && !*err->text)
		error_set(err, 0, "the hand-over is not settled: ask again with \"again\"");
	return code > 0 ? (word ? -EINPROGRESS : -EIO) : code;
}

static int program(struct args *args, const char *what, struct error *err)
{
	CLEANUP_FREE char *wisp = NULL;
	int r = paths_program("wisp", &wisp, err);

	if (r)
		return r;
	args_add(args, "%s", wisp);
	args_add(args, "vm");
	args_add(args, "%s", what);
	return 0;
}

static void pass(const json_t *request, const char *name, struct args *args)
{
	const json_t *value = json_object_get(request, name);

	if (json_is_true(value))
		args_add(args, "--%s", name);
	else if (json_is_integer(value))
		args_add(args, "--%s=%lld", name, (long long)json_integer_value(value));
	else if (json_is_string(value))
		args_add(args, "--%s=%s", name, json_string_value(value));
}

static int run(struct args *args, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *report = NULL;
	int r = args->failed ? error_set(err, -ENOMEM, "out of memory")
			     : errand_run((const char *const *)args->v, &report, err);

	args_done(args);
	if (r)
		return conclude(r, ret, err);
	*ret = json_loads(report, 0, NULL);
	return 0;
}

/*
 * What a hand-over that is asked for again came to, if nobody works on it any more: 0: *record: its
 * record is there, and says how to go on; else *here: the VM runs, or has come back to that.
 * -EAGAIN: it is still under way.
 */
static int look(const char *name, const char *file, bool *record, bool *here, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *vm = NULL, *status = NULL;
	const char *state;
	bool alive, back;
	int r = vms_describe(name, &vm, err);

	*record = *here = false;
	if (r)
		return r == -ENOENT ? 0 : r;
	state = record_text(vm, "state");
	alive = strcmp(state, "ended") && strcmp(state, "lost");
	if (!vms_hand_over_dir(name, &dir, NULL)) {
		*record = record_exists(dir, file);
		control_call(dir, "status", &status, NULL, NULL);
	}
	state = record_text(status, "state");
	*here = alive && (!strcmp(state, "running") || !strcmp(state, "paused"));
	back = *record && *here && hand_over_look(dir) == HAND_OVER_STAYED;
	if (back)
		*record = false;
	else if (json_object_get(vm, "operation") || (alive && !*record && !*here))
		r = error_set(err, -EAGAIN, "it is still under way");
	json_decref(status);
	json_decref(vm);
	return r;
}

/* -------- send -------- */

static int write_token(const char *dir, const json_t *request, struct args *args, struct error *err)
{
	CLEANUP_FREE char *path = record_path(dir, TOKEN_SEND);
	const char *token = record_text(request, "token");

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	args_add(args, "--token=%s", path);
	return *token ? io_write_file(path, token, strlen(token), err) : 0;
}

/* The other VMs of the network go on to know its name. */
static void tell_left(const struct part *p, const char *name)
{
	const struct vms_network network = part_network(p);
	json_t *request = json_pack("{ss,ss}", "op", "left", "name", name);

	if (request)
		vms_network_call(&network, false, request, NULL, NULL);
	json_decref(request);
}

static int send_now(const struct move *m, json_t **ret, struct error *err)
{
	static const char *const options[] = {"streams",  "bandwidth", "max-downtime", "rounds",
					      "precopy",  "hybrid",    "postcopy",     "compress",
					      "throttle", "clock",     "timeout",      "again"};
	CLEANUP_FREE char *dir = NULL;
	struct args args = {0};
	int r = vms_hand_over_dir(m->name, &dir, err);

	/* It has ended, and nothing has begun: that is settled. */
	if (r == -ECHILD)
		return -ESRCH;
	if (!r)
		r = program(&args, "migrate", err);
	if (!r)
		r = write_token(dir, m->request, &args, err);
	if (r) {
		args_done(&args);
		return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		pass(m->request, options[i], &args);
	args_add(&args, json_is_false(json_object_get(m->request, "tls")) ? "--no-tls" : "--tls");
	args_add(&args, "--progress=none");
	args_add(&args, "--json");
	args_add(&args, "--");
	args_add(&args, "%s", m->name);
	args_add(&args, "%s", record_text(m->request, "target"));
	r = run(&args, ret, err);
	if (!r)
		tell_left(m->part, m->name);
	return r;
}

/* Again, without a record: it has gone, or nothing has come of it. */
static int send_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct move *m = arg;
	bool record = true, here = true;
	int r = is_set(m->request, "again") ? look(m->name, RECORD_SEND, &record, &here, err) : 0;

	if (r || record)
		return r ? r : send_now(m, ret, err);
	return here ? error_set(err, -EALREADY, "it runs here") : 0;
}

/*
 * What is known of a VM that is sent: true: nothing; an object: how it ended here; a text: it has
 * moved, and its end here is still to be seen.
 */
bool part_move_ends(struct part *p, const char *vm, json_t *end)
{
	const json_t *known = json_object_get(p->moving, vm);

	if (json_is_true(known)) {
		json_object_set(p->moving, vm, end);
		return true;
	}
	if (json_is_string(known)) {
		json_object_set_new(end, "reason", json_incref((json_t *)known));
		json_object_del(p->moving, vm);
	}
	return false;
}

static void have_sent(struct work *w)
{
	struct part *p = w->part;
	const char *vm = record_text(w->request, "vm");
	json_t *end = json_incref(json_object_get(p->moving, vm));
	json_t *moved = json_string("moved to another node");

	if (w->code || json_is_object(end))
		json_object_del(p->moving, vm);
	else
		json_object_set(p->moving, vm, moved);
	if (json_is_object(end)) {
		if (!w->code)
			json_object_set(end, "reason", moved);
		part_tell_end(p, vm, end);
	}
	json_decref(moved);
	json_decref(end);
	work_end(w);
}

/* The mover may be about to begin. Who asked for the hand-over hears that it was cancelled. */
static int abort_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct move *m = arg;
	CLEANUP_FREE char *dir = NULL, *control = NULL;
	struct busy_now now = {0};
	int r = vms_dir(m->name, &dir, err);

	if (r)
		return r;
	control = record_path(dir, VM_CONTROL);
	if (!control)
		return error_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; !r && i < LOOKS && strcmp(now.what, "send"); i++) {
		if (i)
			poll(NULL, 0, LOOK_MS);
		r = busy_look(control, &now, err);
	}
	if (!r && strcmp(now.what, "send"))
		r = error_set(err, -ENOENT, "the VM is not being sent");
	return r ? r : busy_cancel(control, ABORT_MS, &now, err);
}

static void send_abort(struct part *p, json_int_t id, const json_t *request)
{
	struct move m = {p, request, record_text(request, "vm")};
	struct work *w;

	if (!json_object_get(p->moving, m.name)) {
		part_refuse(p, id, -ENOENT, "the VM is not being sent", NULL);
		return;
	}
	w = move_create(p, id, request);
	if (!w)
		return;
	work_add(w, w->vms[0], abort_one, &m);
	work_go(w, work_end);
}

void part_send(struct part *p, json_int_t id, const json_t *request)
{
	const char *name = record_text(request, "vm"), *target = record_text(request, "target");
	struct move m = {p, request, name};
	struct work *w;

	if (is_set(request, "abort")) {
		send_abort(p, id, request);
		return;
	}
	if (strncmp(target, "tcp:", 4) && strncmp(target, "unix:", 5)) {
		part_refuse(p, id, -EINVAL, "\"target\" is not tcp:HOST:PORT or unix:PATH", NULL);
		return;
	}
	if (json_object_get(p->moving, name)) {
		part_refuse(p, id, -EBUSY, "the VM is being sent", NULL);
		return;
	}
	w = move_create(p, id, request);
	if (!w)
		return;
	json_object_set_new(p->moving, name, json_true());
	work_add(w, w->vms[0], send_one, &m);
	work_go(w, have_sent);
}

/* -------- receive -------- */

static int receive_again(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct move *m = arg;
	struct args args = {0};
	bool record, here;
	int r = look(m->name, RECORD_RECEIVE, &record, &here, err);

	if (!r && !record)
		return here ? 0 : error_set(err, -ENOENT, "it is not here");
	if (!r)
		r = program(&args, "receive", err);
	if (r)
		return r;
	args_add(&args, "--again");
	args_add(&args, "--progress=none");
	args_add(&args, "--json");
	args_add(&args, "--");
	args_add(&args, "%s", m->name);
	return run(&args, ret, err);
}

/* It is told what it needs on its standard input, and says there where it listens. */
static int receive_one(int talk, void *arg, json_t **ret, struct error *err)
{
	struct args args = {0};
	int r = program(&args, "receive", err);

	if (r)
		return r;
	args_add(&args, "--arranged");
	return args.failed ? error_set(err, -ENOMEM, "out of memory")
			   : errand_become(talk, (const char *const *)args.v, err);
}

/* The VM as it is to be here, and not as it was there. */
static json_t *describe(const struct work *w, const json_t *spec)
{
	const struct setup *s = &w->part->setup;
	json_t *vm = json_copy((json_t *)spec), *tls = json_object_get(w->request, "tls");
	json_t *hosts = NULL;

	/* They were looked at when it was prepared. */
	hosts_expand(json_object_get(w->request, "hosts"), &hosts, NULL);
	json_object_update_new(vm, json_pack("{ss,ss,si,so*}", "network", s->network, "network_id",
					     s->network_id, "prefix", (int)s->subnet.prefix,
					     "hosts", hosts));
	return json_pack("{si,so,ss,ss,sb,sb,sb}", "version", 1, "vm", vm, "token",
			 record_text(w->request, "token"), "listen",
			 record_text(w->request, "listen"), "link", 0, "tls", !json_is_false(tls),
			 "ready", is_set(w->request, "ready"));
}

/* Where it listens is told at once; why it fails is its failure. */
static void on_said(struct work *w, const char *vm, const json_t *message, int fd)
{
	const char *listening = record_text(message, "listening");

	cleanup_close_fd(&fd);
	if (*listening)
		part_event(w->part, json_pack("{s:s, s:s, s:s, s:s}", "event", "progress", "op",
					      "receive", "vm", vm, "listening", listening));
	else if (!json_is_true(json_object_get(message, "ok")))
		work_fail(w, -EREMOTEIO, record_text(message, "error"));
}

/* It has come; or its exit code says how it is. */
static void have_received(struct work *w)
{
	json_t *more = NULL;
	struct error err = {""};

	if (w->code == -ECHILD && WIFEXITED(w->status)) {
		w->code = conclude(WEXITSTATUS(w->status), &more, &err);
		if (more) {
			json_decref(w->more);
			w->more = more;
		}
	}
	work_end(w);
}

/* Movers bring memory. Disks have to be at the same place for both. */
static void check_disks(struct work *w, const json_t *spec)
{
	const json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(spec, "disks"), i, disk)
		if (json_is_true(json_object_get(disk, "own")))
			work_fail(w, -EOPNOTSUPP,
				  "this Wisp cannot move volumes without a path (volumes.*.path) "
				  "yet: save the cluster and restart it");
}

static void receive_now(struct work *w)
{
	const char *name = record_text(w->request, "vm");
	const json_t *spec = json_object_get(json_object_get(w->values, ""), name);
	json_t *message;

	check_disks(w, spec);
	if (w->code) {
		work_end(w);
		return;
	}
	message = describe(w, spec);
	json_object_clear(w->values);
	w->said = on_said;
	work_add(w, w->vms[0], receive_one, NULL);
	if (!message || work_tell(w, message))
		work_fail(w, -ENOMEM, "cannot describe the VM");
	json_decref(message);
	work_go(w, have_received);
}

void part_receive(struct part *p, json_int_t id, const json_t *request)
{
	struct move m = {p, request, record_text(request, "vm")};
	struct work *w = move_create(p, id, request);

	if (!w)
		return;
	w->begins = true;
	json_object_del(p->moving, m.name); /* it comes back */
	if (is_set(request, "again")) {
		work_add(w, w->vms[0], receive_again, &m);
		work_go(w, work_end);
		return;
	}
	work_add(w, NULL, begin_prepare, w);
	work_go(w, receive_now);
}
