/* SPDX-License-Identifier: Apache-2.0 */
/* The VMs that a network knows: their names and addresses, who holds them, who is elsewhere. */

#include "vms/entry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/state.h"
#include "vms/guard.h"
#include "vms/handover.h"
#include "vms/record.h"

#define HOSTS_MAX 4096 /* names that are told at once */

const struct log *network_log(const struct network *n)
{
	return net_keeper_log(n->keeper);
}

struct vm *entry_find(const struct network *n, const char *name)
{
	for (struct vm *vm = n->vms; vm; vm = vm->next)
		if (!strcmp(vm->name, name))
			return vm;
	return NULL;
}

bool entry_is_live(const struct vm *vm)
{
	return vm->lock >= 0;
}

bool entry_any_live(const struct network *n)
{
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (entry_is_live(vm))
			return true;
	return false;
}

/* Whether others may talk to it: it lives here or elsewhere. */
static bool is_known(const struct vm *vm)
{
	return entry_is_live(vm) || vm->elsewhere;
}

void entry_remove(struct vm *vm)
{
	struct vm **at = &vm->network->vms;

	while (*at && *at != vm)
		at = &(*at)->next;
	if (*at)
		*at = vm->next;
	cleanup_close_fd(&vm->lock);
	cleanup_close_fd(&vm->tap);
	json_decref(vm->config);
	free(vm->name);
	free(vm->dir);
	free(vm);
}

const struct vm *entry_of_address(const struct network *n, uint32_t address)
{
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (vm->address == address)
			return vm;
	return NULL;
}

/*
 * A free address, best one that no ended VM had: should that come back, it is found where
 * it was. 0: none.
 */
static uint32_t free_address(const struct network *n)
{
	uint32_t second_best = 0;

	for (uint32_t a = n->config->subnet.base + 2; a <= subnet_last(&n->config->subnet); a++) {
		const struct vm *holder = entry_of_address(n, a);

		if (!holder)
			return a;
		if (!is_known(holder) && !second_best)
			second_best = a;
	}
	return second_best;
}

static int choose_address(const struct network *n, const char *name, const char *wanted,
			  uint32_t *ret, struct error *err)
{
	const struct vm *before = entry_find(n, name), *holder;
	int r;

	if (!*wanted) {
		*ret = before ? before->address : free_address(n);
		return *ret ? 0
			    : error_set(err, -ENOSPC, "network %s has no free address: stop a VM",
					n->config->name);
	}
	r = subnet_parse_address(&n->config->subnet, wanted, ret, err);
	holder = r ? NULL : entry_of_address(n, *ret);
	if (holder && is_known(holder) && holder != before)
		return error_set(err, -EADDRINUSE, "address %s belongs to VM %s%s", wanted,
				 holder->name, holder->elsewhere ? " on another node" : "");
	return r;
}

char *entry_hosts(const struct network *n)
{
	struct args list = {0};
	char address[16], *text;

	args_add(&list, "%s", "");
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_known(vm))
			args_extend(&list, "%s%s=%s", *list.v[0] ? "," : "", vm->name,
				    subnet_format(vm->address, address));
	text = list.failed ? NULL : take_ptr(list.v[0]);
	args_done(&list);
	return text;
}

/* All VMs whose names are known, a new reference. */
json_t *entry_list(const struct network *n)
{
	json_t *list = json_array();
	char address[16];

	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_known(vm))
			json_array_append_new(list,
					      json_pack("{ss,ss,sb}", "name", vm->name, "address",
							subnet_format(vm->address, address), "here",
							entry_is_live(vm)));
	return list;
}

static void append_vm(struct network *n, struct vm *vm)
{
	struct vm **at = &n->vms;

	while (*at)
		at = &(*at)->next;
	*at = vm;
}

/* The directory is about to be emptied: what another place waits for stays. */
static int check_left(const struct network *n, const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = io_format("%s/%s", n->config->vms, name);

	if (!dir)
		return error_errno(err, -ENOMEM, "cannot start VM %s", name);
	return hand_over_check(name, dir, HAND_OVER_UNTOLD, "forget that with wisp vm stop --kill",
			       err);
}

/* The entry of a VM, locked; the entry of an ended one of that name is replaced. */
int entry_add(struct network *n, const char *name, const json_t *spec, struct vm **ret,
	      struct error *err)
{
	struct vm *vm, *before = entry_find(n, name);
	uint32_t address;
	int r = paths_check_name(name, "VM", err);

	guards_settle(n->guards, name);
	if (!r && before && entry_is_live(before) && before->abandoned)
		r = error_set(err, -EAGAIN, "VM %s is about to end: nothing came into it", name);
	if (!r && before && entry_is_live(before))
		r = error_set(err, -EBUSY, "VM %s runs already", name);
	if (!r)
		r = check_left(n, name, err);
	if (!r)
		r = choose_address(n, name, record_text(spec, "address"), &address, err);
	if (r)
		return r;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_errno(err, -ENOMEM, "cannot start VM %s", name);
	*vm = (struct vm){.network = n,
			  .name = strdup(name),
			  .dir = io_format("%s/%s", n->config->vms, name),
			  .config = json_deep_copy(spec),
			  .address = address,
			  .lock = -1,
			  .tap = -1};
	r = vm->name && vm->dir && vm->config ? state_lock(vm->dir, &vm->lock, NULL) : -ENOMEM;
	if (r) {
		entry_remove(vm);
		return r == -EBUSY ? error_set(err, r, "VM %s runs already", name)
				   : error_errno(err, r, "cannot start VM %s", name);
	}
	if (before)
		entry_remove(before);
	before = (struct vm *)entry_of_address(n, address);
	if (before)
		entry_remove(before);
	append_vm(n, vm);
	*ret = vm;
	return 0;
}

/* What the VM that comes knew of others, and we do not, is true as far as we know. */
void entry_learn(struct network *n, const json_t *hosts)
{
	json_t *host;
	size_t i;

	json_array_foreach ((json_t *)hosts, i, host) {
		const char *name = record_text(host, "name");
		struct vm *vm;
		uint32_t address;

		if (i == HOSTS_MAX || paths_check_name(name, "VM", NULL) || entry_find(n, name) ||
		    subnet_parse_address(&n->config->subnet, record_text(host, "address"), &address,
					 NULL) ||
		    entry_of_address(n, address))
			continue;
		vm = calloc(1, sizeof(*vm));
		if (!vm)
			return;
		*vm = (struct vm){.network = n,
				  .name = strdup(name),
				  .address = address,
				  .lock = -1,
				  .tap = -1,
				  .elsewhere = true};
		if (vm->name)
			append_vm(n, vm);
		else
			free(vm);
	}
}

void entry_expect(struct network *n, const json_t *hosts)
{
	json_t *host;
	size_t i;

	json_array_foreach ((json_t *)hosts, i, host) {
		struct vm *vm = entry_find(n, record_text(host, "name"));
		char address[16];

		if (vm && !entry_is_live(vm) &&
		    !strcmp(subnet_format(vm->address, address), record_text(host, "address")))
			vm->elsewhere = true;
	}
	entry_learn(n, hosts);
}
