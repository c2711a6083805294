/* SPDX-License-Identifier: Apache-2.0 */
/* The part's connection to the daemon: what it is asked, and what it says. */

#include "part/part.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "part/group.h"
#include "part/pump.h"
#include "part/volume.h"
#include "part/work.h"

/* -------- what it says -------- */

static void say(struct part *p, json_t *message)
{
	struct error err;
	int r = message ? conn_send(p->conn, message, &err) : -ENOMEM;

	if (r == -EMSGSIZE)
		conn_fail(p->conn, r, "an answer is too long for a message");
	json_decref(message);
}

void part_answer(struct part *p, json_int_t id, json_t *value)
{
	say(p, json_pack("{s:I, s:b, s:o*}", "re", id, "done", 1, "value", value));
}

void part_refuse(struct part *p, json_int_t id, int code, const char *reason, json_t *more)
{
	json_t *message = json_pack("{s:I, s:b, s:i, s:s}", "re", id, "done", 1, "errno", -code,
				    "error", reason);

	if (message && more)
		json_object_update_missing(message, more);
	json_decref(more);
	say(p, message);
}

void part_event(struct part *p, json_t *event)
{
	say(p, event);
}

/* -------- VMs -------- */

struct vms_network part_network(const struct part *p)
{
	return (struct vms_network){.name = p->setup.network,
				    .subnet = p->setup.made ? NULL : &p->setup.subnet,
				    .id = p->setup.made ? NULL : p->setup.network_id,
				    .lent = p->setup.made};
}

/* Some of them by name, each once. */
static int pick(const struct part *p, const json_t *names, const struct setup_vm **ret, size_t *n,
		struct error *err)
{
	const json_t *name;
	size_t i;

	json_array_foreach (names, i, name) {
		const char *text = json_string_value(name);
		const struct setup_vm *vm = text ? setup_find(&p->setup, text) : NULL;

		if (!vm)
			return error_set(err, -ENOENT, "cluster %s has no VM %s on this node",
					 p->setup.cluster, text ? text : "without a name");
		for (size_t k = 0; k < *n; k++)
			if (ret[k] == vm)
				return error_set(err, -EINVAL, "VM %s is named twice", text);
		ret[(*n)++] = vm;
	}
	return 0;
}

int part_vms(const struct part *p, const json_t *request, const struct setup_vm ***ret, size_t *n,
	     struct error *err)
{
	const json_t *names = json_object_get(request, "vms");
	CLEANUP_FREE const struct setup_vm **list = calloc(p->setup.nvms + 1, sizeof(*list));
	int r = 0;

	*n = 0;
	if (!list)
		return error_set(err, -ENOMEM, "out of memory");
	if (names && !json_is_array(names))
		r = error_set(err, -EINVAL, "\"vms\" is not a list of names");
	else if (names)
		r = pick(p, names, list, n, err);
	else
		for (size_t i = 0; i < p->setup.nvms; i++)
			if (!p->setup.vms[i].gone)
				list[(*n)++] = &p->setup.vms[i];
	if (!r)
		*ret = take_ptr(list);
	return r;
}

/* What is so at the beginning is told behind the answer. */
static void tell_guest(struct part *p, json_t *event)
{
	if (p->early)
		json_array_append_new(p->early, event);
	else
		part_event(p, event);
}

void part_tell_end(struct part *p, const char *vm, const json_t *end)
{
	tell_guest(p, json_pack("{s:s, s:s, s:O}", "event", "vm-ended", "vm", vm, "end", end));
}

static void on_ready(struct part *p, const char *vm, const json_t *times)
{
	tell_guest(p, json_pack("{s:s, s:s, s:O*}", "event", "ready", "vm", vm, "times", times));
}

static void on_guest(void *arg, const struct setup_vm *vm, enum guest_state state,
		     const json_t *record)
{
	struct part *p = arg;
	json_t *end;

	if (state == GUEST_READY) {
		on_ready(p, vm->name, record);
		return;
	}
	volumes_remove(p->volumes, vm->name);
	end = record ? json_incref((json_t *)record)
		     : json_pack("{s:s}", "reason", "gone without a record of its end");
	if (!part_move_ends(p, vm->name, end))
		part_tell_end(p, vm->name, end);
	json_decref(end);
}

/* -------- setup -------- */

static json_t *states(const struct part *p)
{
	json_t *all = json_object();

	for (size_t i = 0; i < p->setup.nvms; i++) {
		const struct setup_vm *vm = &p->setup.vms[i];

		json_object_set_new(all, vm->name,
				    json_string(guest_word(guest_state(p->guests, vm))));
	}
	return json_pack("{s:o}", "vms", all);
}

/* What VMs that end left of their volumes while no part was there. */
static void remove_old_volumes(const struct part *p)
{
	for (size_t i = 0; i < p->setup.nvms; i++) {
		enum guest_state state = guest_state(p->guests, &p->setup.vms[i]);

		if (state == GUEST_NONE || state == GUEST_ENDED)
			volumes_remove(p->volumes, p->setup.vms[i].name);
	}
}

static int set_up(struct part *p, const json_t *request, struct error *err)
{
	int r = setup_parse(request, &p->setup, err);

	if (r)
		return r;
	r = group_join(p->setup.cgroup, err);
	if (!r)
		r = volume_folder(p->setup.node, p->setup.cluster, &p->volumes, err);
	if (!r)
		r = guests_create(p->loop, &p->setup, on_guest, p, &p->guests, err);
	if (r) {
		setup_done(&p->setup);
		free(take_ptr(p->volumes));
	}
	return r;
}

static void part_setup(struct part *p, json_int_t id, const json_t *request)
{
	struct error err;
	json_t *event;
	size_t i;
	int r;

	p->early = json_array();
	r = set_up(p, request, &err);
	if (r) {
		part_refuse(p, id, r, err.text, NULL);
	} else {
		p->is_set_up = true;
		part_answer(p, id, states(p));
		remove_old_volumes(p);
		part_attach(p);
	}
	json_array_foreach (p->early, i, event)
		if (!r)
			part_event(p, json_incref(event));
	json_decref(p->early);
	p->early = NULL;
}

/* VMs come from other nodes, and have gone there. */
static void part_change(struct part *p, json_int_t id, const json_t *request)
{
	struct error err;
	int r = setup_change(&p->setup, request, &err);

	if (!r)
		r = guests_more(p->guests, &err);
	if (r)
		part_refuse(p, id, r, err.text, NULL);
	else
		part_answer(p, id, NULL);
}

/* -------- what it is asked -------- */

static const struct request {
	const char *op;
	part_fn *fn;
} requests[] = {
	{"start", part_start},	   {"restore", part_restore}, {"pause", part_pause},
	{"resume", part_resume},   {"save", part_save},	      {"send", part_send},
	{"receive", part_receive}, {"stop", part_stop},	      {"connect", part_connect},
	{"list", part_list},	   {"usage", part_usage},     {"image", part_image},
	{"tcp", part_tcp},	   {"vms", part_change},
};

static void do_request(struct part *p, json_int_t id, const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	bool sets_up = op && !strcmp(op, "setup");
	char reason[128];

	if (sets_up == p->is_set_up) {
		part_refuse(p, id, -EPROTO,
			    sets_up ? "setup comes once" : "the first request has to be setup",
			    NULL);
		return;
	}
	if (sets_up) {
		part_setup(p, id, request);
		return;
	}
	for (size_t i = 0; op && i < ARRAY_SIZE(requests); i++) {
		if (!strcmp(requests[i].op, op)) {
			requests[i].fn(p, id, request);
			return;
		}
	}
	snprintf(reason, sizeof(reason), "there is no request \"%.64s\"", op ? op : "");
	part_refuse(p, id, -ENOSYS, reason, NULL);
}

void part_go_on(struct part *p)
{
	json_t *stops = p->stops, *request;
	size_t i;

	p->stops = json_array();
	json_array_foreach (stops, i, request)
		part_stop(p, json_integer_value(json_object_get(request, "id")), request);
	json_decref(stops);
}

/* Who was behind a stream is not there any more. */
static void on_event(struct part *p, const json_t *message)
{
	if (!strcmp(json_string_value(json_object_get(message, "event")), "reset"))
		pump_close(p->pumps,
			   (uint32_t)json_integer_value(json_object_get(message, "stream")));
}

static void on_message(void *arg, json_t *message)
{
	struct part *p = arg;
	const json_t *id = json_object_get(message, "id");

	if (json_is_string(json_object_get(message, "event")))
		on_event(p, message);
	else if (!json_is_integer(id) || json_integer_value(id) < 1)
		conn_fail(p->conn, -EPROTO, "a request has no positive \"id\"");
	else
		do_request(p, json_integer_value(id), message);
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct part *p = arg;

	pumps_data(p->pumps, stream, data, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct part *p = arg;

	pumps_sent(p->pumps, stream);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct part *p = arg;

	if (code)
		log_warn(p->log, "part", "the daemon: %s", reason);
	loop_stop(p->loop);
}

int part_create(struct loop *loop, const struct log *log, int fd, struct part **ret,
		struct error *err)
{
	static const struct conn_ops ops = {on_message, on_data, on_sent, on_closed};
	struct part *p = calloc(1, sizeof(*p));
	struct conn_params params = {.loop = loop, .in = fd, .out = fd, .ops = &ops, .arg = p};
	int r;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	*p = (struct part){
		.loop = loop, .log = log, .stops = json_array(), .moving = json_object()};
	r = errands_create(loop, &p->errands);
	if (r)
		error_errno(err, r, "cannot begin");
	if (!r)
		r = conn_create(&params, &p->conn, err);
	if (!r)
		r = pumps_create(loop, p->conn, &p->pumps, err);
	if (r)
		part_destroy(p);
	else
		*ret = p;
	return r;
}

void part_destroy(struct part *p)
{
	if (!p)
		return;
	part_save_destroy(p);
	works_destroy(p);
	errands_destroy(p->errands);
	pumps_destroy(p->pumps);
	guests_destroy(p->guests);
	conn_destroy(p->conn);
	setup_done(&p->setup);
	json_decref(p->stops);
	json_decref(p->moving);
	json_decref(p->early);
	free(p->volumes);
	free(p);
}
