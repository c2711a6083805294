/* SPDX-License-Identifier: Apache-2.0 */
/* The VMs of a network, from the keeper's point of view. */

#include "vms/network.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/state.h"
#include "vms/end.h"
#include "vms/entry.h"
#include "vms/guard.h"
#include "vms/handover.h"
#include "vms/launch.h"
#include "vms/links.h"
#include "vms/record.h"

#define IDLE_NS 3000000000ULL /* a network without VMs ends after this */

/* -------- starting -------- */

static bool is_incoming(const json_t *spec)
{
	return json_is_true(json_object_get(spec, "incoming"));
}

/* Writes the description with the nodes that its network is on now, and the VMs there. */
static int write_config(struct vm *vm, struct error *err)
{
	json_t *more = json_pack("{so,so}", "nodes", links_nodes(vm->network->links), "hosts",
				 entry_list(vm->network));

	if (!more || json_object_update_new(vm->config, more) < 0)
		return error_errno(err, -ENOMEM, "cannot describe VM %s", vm->name);
	return record_write(vm->dir, RECORD_CONFIG, vm->config, err);
}

/* Adds to the description what only the keeper knows. */
static int complete_config(struct vm *vm, struct error *err)
{
	const struct network_config *c = vm->network->config;
	char address[16], mac[18], id[17];
	json_t *more =
		json_pack("{ss,ss,ss,ss,ss,si,sI}", "name", vm->name, "network", c->name,
			  "network_id", network_format_id(c->id, id), "address",
			  subnet_format(vm->address, address), "mac", subnet_mac(vm->address, mac),
			  "prefix", (int)c->subnet.prefix, "started", (json_int_t)time(NULL));

	if (!more || json_object_update_new(vm->config, more) < 0)
		return error_errno(err, -ENOMEM, "cannot start VM %s", vm->name);
	return write_config(vm, err);
}

static char *name_tap(const struct vm *vm, char ret[16])
{
	snprintf(ret, 16, "vm%u", vm->address - vm->network->config->subnet.base);
	return ret;
}

static void rest_tap(const struct vm *vm)
{
	char tap[16];

	net_keeper_tap_rest(vm->network->keeper, name_tap(vm, tap));
}

static int set_up(struct vm *vm, struct error *err)
{
	char tap[16];
	int r;

	vm->incoming = is_incoming(vm->config);
	json_object_del(vm->config, "incoming");
	r = complete_config(vm, err);
	if (!r)
		r = net_keeper_tap(vm->network->keeper, name_tap(vm, tap), &vm->tap, err);
	return r ? r : launch_vm(vm, err);
}

/* Without its VMM: what a start that failed leaves, or an end. */
static void let_go(struct vm *vm)
{
	static const char *const sockets[] = {VM_CONTROL, VM_VSOCK};

	if (vm->greeter)
		kill(vm->greeter, SIGKILL);
	shares_stop(vm);
	for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++) {
		CLEANUP_FREE char *path = record_path(vm->dir, sockets[i]);

		if (path)
			unlink(path);
	}
	cleanup_close_fd(&vm->tap);
	vm->tap = -1;
	rest_tap(vm);
	close(take_fd(&vm->lock));
	if (!entry_any_live(vm->network))
		loop_set_timer(vm->network->idle, IDLE_NS, 0);
}

/* A checkpoint has the description: where it is restored, it is linked again. */
static void on_links(void *arg)
{
	struct network *n = arg;
	struct error err;

	for (struct vm *vm = n->vms; vm; vm = vm->next)
		if (entry_is_live(vm) && write_config(vm, &err))
			log_warn(network_log(n), "links", "%s", err.text);
}

static int op_start(struct network *n, const json_t *request, json_t *answer, struct error *err)
{
	const json_t *spec = json_object_get(request, "vm");
	struct vm *vm = NULL;
	int r = entry_add(n, record_text(spec, "name"), spec, &vm, err);

	if (r)
		return r;
	if (is_incoming(spec) && json_array_size(json_object_get(spec, "nodes")))
		entry_learn(n, json_object_get(spec, "hosts"));
	r = set_up(vm, err);
	if (r) {
		bool running = vm->vmm;

		/* A VMM without its greeter: its end will do the rest. */
		if (running) {
			kill(vm->vmm, SIGKILL);
			return r;
		}
		state_remove(vm->dir, NULL);
		let_go(vm);
		return r;
	}
	loop_set_timer(n->idle, 0, 0);
	if (links_any(n->links))
		on_links(n);
	log_info(network_log(n), "vms", "%s starts (%s)", vm->name,
		 record_text(vm->config, "address"));
	return json_object_set(answer, "vm", vm->config) < 0 ? -ENOMEM : 0;
}

/* -------- other requests -------- */

static int op_vms(const struct network *n, json_t *answer, struct error *err)
{
	return json_object_set_new(answer, "vms", entry_list(n)) < 0
		       ? error_errno(err, -ENOMEM, "cannot list the VMs")
		       : 0;
}

/* It has ended here, or is about to, because it runs at another node. */
static int op_left(const struct network *n, const json_t *request, struct error *err)
{
	struct vm *vm = entry_find(n, record_text(request, "name"));

	if (!vm)
		return error_set(err, -ESRCH, "VM %s was never here", record_text(request, "name"));
	vm->elsewhere = true;
	rest_tap(vm);
	return 0;
}

/* They are to be known from the start, here or elsewhere. */
static int op_hosts(struct network *n, const json_t *request, struct error *err)
{
	const json_t *hosts = json_object_get(request, "hosts");

	if (!json_is_array(hosts))
		return error_set(err, -EINVAL, "hosts: no list");
	entry_expect(n, hosts);
	return 0;
}

static int op_kill(const struct network *n, const json_t *request, struct error *err)
{
	const char *name = record_text(request, "name");
	const struct vm *vm = entry_find(n, name);

	if (!vm || !entry_is_live(vm))
		return error_set(err, -ESRCH, "VM %s does not run", name);
	return kill(vm->vmm, SIGKILL) < 0 ? error_errno(err, -errno, "cannot kill VM %s", name) : 0;
}

char *network_format_id(uint64_t id, char buf[17])
{
	snprintf(buf, 17, "%016" PRIx64, id);
	return buf;
}

static int op_network(const struct network *n, json_t *answer, struct error *err)
{
	const struct network_config *c = n->config;
	char base[16], id[17];
	json_t *more = json_pack("{ss,ss,sI,ss,si,so}", "name", c->name, "id",
				 network_format_id(c->id, id), "vni", (json_int_t)links_vni(c->id),
				 "base", subnet_format(c->subnet.base, base), "prefix",
				 (int)c->subnet.prefix, "nodes", links_nodes(n->links));

	if (!more || json_object_update_new(answer, more) < 0)
		return error_errno(err, -ENOMEM, "cannot describe the network");
	return op_vms(n, answer, err);
}

static int op_leave(struct network *n, json_t *answer)
{
	bool ends = !n->config->stays && !entry_any_live(n);

	/* Whoever stopped the last VM waits for our end. */
	json_object_set_new(answer, "ends", json_boolean(ends));
	if (ends)
		net_keeper_stop(n->keeper);
	return 0;
}

/* Nothing came into it, and nothing will. */
static void abandon(struct vm *vm)
{
	if (!entry_is_live(vm) || !vm->incoming)
		return;
	vm->abandoned = true;
	kill(vm->vmm, SIGKILL);
}

/* Once a hand-over is recorded either place may have the only copy, and both have to be reached. */
static bool is_recorded(void *arg, const json_t *request)
{
	const struct vm *vm = entry_find(arg, record_text(request, "name"));

	return vm && vm->dir && hand_over_look(vm->dir);
}

/* A command died that had begun to move a VM. */
static void on_abandoned(void *arg, const json_t *request)
{
	struct network *n = arg;
	const char *name = record_text(request, "name");
	struct vm *vm = entry_find(n, name);
	CLEANUP_FREE char *token = vm && vm->dir ? record_path(vm->dir, TOKEN_SEND) : NULL;

	log_info(network_log(n), "vms", "%s: what was begun is taken back, wisp was killed", name);
	if (json_array_size(json_object_get(request, "peers")))
		links_drop(n->links, request, true, NULL);
	if (token)
		unlink(token);
	if (vm && json_is_true(json_object_get(request, "empty")))
		abandon(vm);
}

static int on_request(struct net_keeper *keeper, void *arg, const char *op, const json_t *request,
		      json_t *answer, int *fd, struct error *err)
{
	struct network *n = arg;

	if (!strcmp(op, "start"))
		return op_start(n, request, answer, err);
	if (!strcmp(op, "vms"))
		return op_vms(n, answer, err);
	if (!strcmp(op, "hosts"))
		return op_hosts(n, request, err);
	if (!strcmp(op, "kill"))
		return op_kill(n, request, err);
	if (!strcmp(op, "guard"))
		return guards_add(n->guards, request, fd, err);
	if (!strcmp(op, "left"))
		return op_left(n, request, err);
	if (!strcmp(op, "network"))
		return op_network(n, answer, err);
	if (!strcmp(op, "link"))
		return links_add(n->links, request, answer, err);
	if (!strcmp(op, "unlink"))
		return links_drop(n->links, request,
				  json_is_true(json_object_get(request, "undone")), err);
	return strcmp(op, "leave") ? -ENOSYS : op_leave(n, answer);
}

/* -------- ends -------- */

static void end_vm(struct vm *vm, int status)
{
	CLEANUP_FREE char *said = end_last_words(vm->dir);
	json_t *end = end_describe(status, said ? said : "");
	struct error err = {"out of memory"};

	log_info(network_log(vm->network), "vms", "%s: %s", vm->name, record_text(end, "reason"));
	if (vm->abandoned)
		state_remove(vm->dir, NULL);
	else if (!end || record_write(vm->dir, RECORD_END, end, &err))
		log_warn(network_log(vm->network), "vms", "%s: %s", vm->name, err.text);
	json_decref(end);
	let_go(vm);
}

/* A guest that reboots before it was ever up would do so for ever. */
static bool wants_restart(const struct vm *vm, int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_REBOOT &&
	       strcmp(record_text(vm->config, "on-reboot"), "exit") != 0 &&
	       record_exists(vm->dir, RECORD_READY);
}

static void on_vmm_end(struct vm *vm, int status)
{
	struct error err;

	vm->vmm = 0;
	if (!wants_restart(vm, status)) {
		end_vm(vm, status);
		return;
	}
	log_info(network_log(vm->network), "vms", "%s reboots", vm->name);
	if (vm->greeter)
		kill(vm->greeter, SIGKILL);
	vm->greeter = 0;
	vm->incoming = false;
	if (!launch_vm(vm, &err))
		return;
	log_error(network_log(vm->network), "vms", "%s: %s", vm->name, err.text);
	if (vm->vmm)
		kill(vm->vmm, SIGKILL);
	else
		end_vm(vm, status);
}

static void on_child(struct net_keeper *keeper, void *arg, pid_t pid, int status)
{
	struct network *n = arg;

	for (struct vm *vm = n->vms; vm; vm = vm->next) {
		if (vm->greeter == pid)
			vm->greeter = 0;
		shares_ended(vm, pid);
		if (vm->vmm == pid) {
			on_vmm_end(vm, status);
			return;
		}
	}
}

/* -------- the keeper's life -------- */

static void on_idle(void *arg)
{
	struct network *n = arg;

	if (!n->config->stays && !entry_any_live(n))
		net_keeper_stop(n->keeper);
}

static int on_start(struct net_keeper *keeper, void *arg, struct error *err)
{
	struct network *n = arg;
	int r;

	n->keeper = keeper;
	r = loop_add_timer(net_keeper_loop(keeper), on_idle, n, &n->idle);
	if (!r)
		r = loop_set_timer(n->idle, IDLE_NS, 0);
	if (!r)
		r = links_create(keeper, links_vni(n->config->id), on_links, n, &n->links);
	if (!r)
		r = guards_create(net_keeper_loop(keeper), on_abandoned, is_recorded, n,
				  &n->guards);
	return r ? error_errno(err, r, "cannot start network %s", n->config->name) : 0;
}

/* In order: the VMs that still run die with the keeper, and somebody wanted that. */
static void on_stop(struct net_keeper *keeper, void *arg)
{
	struct network *n = arg;

	for (struct vm *vm = n->vms; vm; vm = vm->next) {
		int status = SIGKILL;

		if (!entry_is_live(vm))
			continue;
		kill(vm->vmm, SIGKILL);
		waitpid(vm->vmm, &status, 0);
		end_vm(vm, status);
	}
	guards_destroy(n->guards);
	n->guards = NULL;
	links_destroy(n->links);
	n->links = NULL;
}

const struct net_hooks network_hooks = {
	.start = on_start,
	.request = on_request,
	.child = on_child,
	.stop = on_stop,
};

int network_create(const struct network_config *config, struct network **ret)
{
	struct network *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->config = config;
	*ret = n;
	return 0;
}

void network_destroy(struct network *network)
{
	if (!network)
		return;
	while (network->vms)
		entry_remove(network->vms);
	free(network);
}
