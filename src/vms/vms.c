/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, describing and starting VMs. */

#include "vms/vms.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "lib/busy.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/state.h"
#include "vms/agent.h"
#include "vms/control.h"
#include "vms/handover.h"
#include "vms/record.h"

#define LOOK_MS 20

int vms_start(const json_t *spec, const struct vms_network *network, json_t **ret,
	      struct error *err)
{
	json_t *request = json_pack("{sssO}", "op", "start", "vm", spec), *answer = NULL;
	int r = request ? vms_network_call(network, true, request, &answer, err)
			: error_errno(err, -ENOMEM, "cannot start a VM");

	if (!r)
		*ret = json_incref(json_object_get(answer, "vm"));
	json_decref(answer);
	json_decref(request);
	return r;
}

/* -------- finding -------- */

static int find_dir(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = paths_check_name(name, "VM", err);

	if (!r)
		r = paths_run("vm", name, &dir, err);
	if (!r && access(dir, F_OK) < 0)
		r = error_set(err, -ENOENT, "there is no VM %s (\"wisp vm list\" shows all)", name);
	if (!r)
		*ret = take_ptr(dir);
	return r;
}

static int say_end(const char *name, const json_t *end, struct error *err)
{
	const char *said = record_text(end, "said");

	return error_set(err, -ECHILD, "VM %s has ended: %s%s%s", name,
			 end ? record_text(end, "reason") : "lost with its network's keeper",
			 *said ? ": " : "", said);
}

/* -ECHILD with the reason when it does not run any more. */
static int check_alive(const char *name, const char *dir, struct error *err)
{
	json_t *end = NULL;
	int r;

	if (state_alive(dir))
		return 0;
	record_read(dir, RECORD_END, &end, NULL);
	r = say_end(name, end, err);
	json_decref(end);
	return r;
}

int vms_dir(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = find_dir(name, &dir, err);

	if (!r)
		r = check_alive(name, dir, err);
	if (!r)
		*ret = take_ptr(dir);
	return r;
}

int vms_agent(const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = vms_dir(name, &dir, err);

	if (r)
		return r;
	r = vm_agent_connect(dir, err);
	if (r < 0 && !record_exists(dir, RECORD_READY))
		return error_set(err, r, "the agent of VM %s is not up yet (wisp vm console %s)",
				 name, name);
	return r < 0 ? error_prefix(err, r, "the agent of VM %s does not answer", name) : r;
}

/* 1 when it is what we wait for, 0 when not yet. */
static int is_up(const char *dir, bool agent, json_t **ret)
{
	if (!agent)
		return !control_call(dir, "status", NULL, NULL, NULL);
	return !record_read(dir, RECORD_READY, ret, NULL);
}

int vms_wait(const char *name, bool agent, unsigned timeout_ms, json_t **ret, struct error *err)
{
	uint64_t end = io_now_ns() + (uint64_t)timeout_ms * 1000000;
	CLEANUP_FREE char *dir = NULL;
	int r = find_dir(name, &dir, err);

	*ret = NULL;
	while (!r && !is_up(dir, agent, ret)) {
		r = check_alive(name, dir, err);
		if (!r && io_now_ns() > end)
			r = error_set(err, -ETIMEDOUT,
				      "VM %s is not ready after %u s; it keeps running (wisp vm "
				      "console %s, wisp vm log %s)",
				      name, timeout_ms / 1000, name, name);
		if (!r)
			poll(NULL, 0, LOOK_MS);
	}
	return r;
}

int vms_hand_over_dir(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = find_dir(name, &dir, err);

	if (!r && !hand_over_look(dir))
		r = check_alive(name, dir, err);
	if (!r)
		*ret = take_ptr(dir);
	return r;
}

/* -------- describing -------- */

/* What wisp-mover does with it just now. */
static void describe_operation(const char *dir, json_t *vm)
{
	CLEANUP_FREE char *control = io_format("%s/" VM_CONTROL, dir);
	struct busy_now now;

	if (control && busy_look(control, &now, NULL) == 0 && now.pid)
		json_object_set_new(vm, "operation",
				    json_pack("{s:s,s:i}", "what", now.what, "pid", now.pid));
}

static void describe_live(const char *dir, json_t *vm)
{
	static const char *const members[] = {"vcpus", "memory", "uptime_ms", "pid"};
	json_t *status = NULL, *boot = NULL;
	const char *state = "starting";
	pid_t pid = 0;

	record_read(dir, RECORD_READY, &boot, NULL);
	if (!control_call(dir, "status", &status, &pid, NULL)) {
		for (unsigned i = 0; i < ARRAY_SIZE(members); i++)
			json_object_set(vm, members[i], json_object_get(status, members[i]));
		/* Its own idea of its number is that of its PID namespace. */
		json_object_set_new(vm, "pid", json_integer(pid));
		if (!strcmp(record_text(status, "state"), "paused"))
			state = "paused";
		else if (boot)
			state = "running";
	}
	json_object_set_new(vm, "state", json_string(state));
	if (boot)
		json_object_set_new(vm, "boot", boot);
	describe_operation(dir, vm);
	json_decref(status);
}

static void describe_dead(const char *dir, json_t *vm)
{
	enum hand_over open = hand_over_look(dir);
	json_t *end = NULL;

	record_read(dir, RECORD_END, &end, NULL);
	json_object_set_new(vm, "state", json_string(end ? "ended" : "lost"));
	if (end)
		json_object_set_new(vm, "end", end);
	else if (!open)
		state_sweep(dir, NULL);
}

int vms_describe(const char *name, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *vm = NULL;
	struct error open;
	bool alive;
	int r = find_dir(name, &dir, err);

	if (r)
		return r;
	alive = state_alive(dir);
	record_read(dir, RECORD_CONFIG, &vm, NULL);
	if (!vm) /* about to start, or killed at that */
		vm = json_pack("{ss}", "name", name);
	if (!vm)
		return error_errno(err, -ENOMEM, "VM %s", name);
	if (alive)
		describe_live(dir, vm);
	else
		describe_dead(dir, vm);
	if (!json_object_get(vm, "operation") &&
	    hand_over_check(name, dir, HAND_OVER_STAYED, "forget it with wisp vm stop --kill",
			    &open))
		json_object_set_new(vm, "hand_over", json_string(open.text));
	*ret = vm;
	return 0;
}

int vms_names(char ***ret, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = paths_run("vm", NULL, &folder, err);

	vms_sweep_networks();
	return r ? r : state_list(folder, ret, err);
}
