/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_ENTRY_H
#define WISP_VMS_ENTRY_H

/*
 * What a network's keeper knows of each VM. An entry outlives its VM, for the address. All of it is
 * the keeper's one thread's.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vms/network.h"
#include "vms/shares.h"

struct error;
struct log;

struct vm {
	struct vm *next;
	struct network *network;
	char *name, *dir;
	json_t *config; /* RECORD_CONFIG */
	uint32_t address;
	int lock;	/* of its directory; -1 once it has ended: then only its address is kept */
	bool incoming;	/* starts with a saved state instead of a kernel; a reboot does not */
	bool abandoned; /* killed because nothing came into it: leaves nothing */
	bool elsewhere; /* on another node, or about to be: its name and address are kept */
	int tap;
	pid_t vmm, greeter;	 /* 0: none */
	pid_t share[SHARES_MAX]; /* virtiofsd of its shares, likewise */
};

struct network {
	const struct network_config *config;
	struct net_keeper *keeper;
	struct vm *vms;
	struct loop_source *idle;
	struct links *links;
	struct guards *guards;
};

const struct log *network_log(const struct network *n);

/* NULL: none of that name, or address. */
struct vm *entry_find(const struct network *n, const char *name);
const struct vm *entry_of_address(const struct network *n, uint32_t address);

/* It has processes here. */
bool entry_is_live(const struct vm *vm);
bool entry_any_live(const struct network *n);

/*
 * A new entry, its directory locked, for a VM of that name and description, which is copied; the
 * entry of an ended one of that name or address is replaced. 0, -EBUSY: it runs already, -EAGAIN:
 * it will have ended soon, or -errno. The entry is the network's until entry_remove().
 */
int entry_add(struct network *n, const char *name, const json_t *spec, struct vm **ret,
	      struct error *err);
void entry_remove(struct vm *vm);

/* Entries for VMs elsewhere, as a VM that came describes them; those that cannot be are left out.
 */
void entry_learn(struct network *n, const json_t *hosts);

/* The same for what whoever arranges the network knows: those that ended here are among them. */
void entry_expect(struct network *n, const json_t *hosts);

/* All whose names are known: a JSON array, a new reference; as text "a=10.78.0.2,b=...", the
 * caller's, NULL: no memory. */
json_t *entry_list(const struct network *n);
char *entry_hosts(const struct network *n);

#endif
