/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ACCOUNT_H
#define WISP_NODE_ACCOUNT_H

/*
 * What VMs used, and for how long, in the store. A record is written when a VM starts, brought up
 * to date every ACCOUNT_EVERY seconds and closed at its end, so a daemon that is killed loses a
 * minute of what runs at most. Times are seconds since 1970. One thread.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct store;

#define ACCOUNT_EVERY 60

struct account_vm {
	const char *cluster, *vm;
	unsigned user;
	unsigned cpus, cores; /* virtual ones, and physical ones of its own (0: shared) */
	unsigned devices;
	uint64_t memory; /* bytes */
};

/* Since its VMM or control group began; when one begins anew the record counts on. */
struct account_use {
	uint64_t cpu_us, peak_memory; /* of the control group */
	uint64_t exits, bytes;	      /* account_read() */
};

#define ACCOUNT_UNKNOWN UINT64_MAX /* of each but peak_memory: it stays as it was */

/* A new record, with what the VM holds now; returns its id (positive) or -errno. */
int64_t account_begin(struct store *s, const struct account_vm *vm, int64_t now, struct error *err);

/* -ENOENT: there is no such record, or it is closed. */
int account_update(struct store *s, int64_t id, const struct account_use *use, int64_t now,
		   struct error *err);

/*
 * Whether there is a record of that VM that is not closed. And closes it, or (vm NULL) all of the
 * cluster; fine when there is none.
 */
bool account_is_open(struct store *s, const char *cluster, const char *vm);
int account_close(struct store *s, const char *cluster, const char *vm, const char *how,
		  int64_t now, struct error *err);

/*
 * After a start of the daemon: closes records of VMs that hold nothing any more, as of when they
 * were seen last ("lost"). Returns how many, or -errno.
 */
int account_recover(struct store *s, struct error *err);

/* Adds up exits and bytes of a result of `stats` (docs/formats/control.md); what it lacks counts 0.
 */
void account_read(const json_t *stats, struct account_use *ret);

struct account_query {
	int64_t from, to;    /* records that overlap this; to 0: no end */
	const char *cluster; /* NULL: any */
	int64_t user;	     /* -1: any */
};

/*
 * The records, oldest first, a new list of objects: the members of the table `usage`, and "seconds"
 * (those in the time that was asked for), "cpu_seconds" and "core_seconds" (physical cores of its
 * own times seconds). "held": {"cpus": [0, 1], "memory": {"0": bytes}, "devices": [address]}.
 */
int account_list(struct store *s, const struct account_query *query, json_t **ret,
		 struct error *err);

#endif
