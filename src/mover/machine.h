/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MACHINE_H
#define WISP_MOVER_MACHINE_H

/*
 * What a migration wants of a VMM, whoever provides it: the control socket (machine_connect()), or
 * a stand-in of the tests. All functions return 0 or -errno; -ENOTCONN says that the connection
 * to the VMM is lost, so that what was asked may have happened or not; every other code is an
 * answer: it has not. What dirty_start(), throttle() and a held pause() began ends with the
 * connection (docs/formats/control.md). dirty_collect() may be called by several threads, flush()
 * by another one, the others by one.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mover/faults.h"

struct error;
struct machine;

#define MACHINE_NAME 96

enum machine_state {
	MACHINE_RUNNING,
	MACHINE_PAUSED,
	MACHINE_INCOMING,
	MACHINE_FAILED,
};

struct machine_ops {
	int (*state)(struct machine *vmm, enum machine_state *ret, struct error *err);
	/* Whether it was loaded and has not run since. */
	int (*loaded)(struct machine *vmm, bool *ret, struct error *err);
	/* The one name of this VMM (`instance` of its status), at most MACHINE_NAME bytes. */
	int (*name)(struct machine *vmm, char ret[MACHINE_NAME], struct error *err);
	/* The memfd of guest RAM; the caller owns it. */
	int (*memory)(struct machine *vmm, int *fd, struct error *err);
	/* A new object: vcpus, memory {size, page_size, regions}, and what "describe" says. */
	int (*describe)(struct machine *vmm, json_t **ret, struct error *err);
	/*
	 * What the host still has in memory of the disks that the VM writes is written out, while
	 * it runs. -ECANCELED when cancel (may be NULL) says so.
	 */
	int (*flush)(struct machine *vmm, const _Atomic bool *cancel, struct error *err);
	/* Adds to what describe() said what each disk has now in some places. */
	int (*sample)(struct machine *vmm, json_t *vm, struct error *err);
	int (*pause)(struct machine *vmm, bool hold, struct error *err);
	int (*resume)(struct machine *vmm, struct error *err);
	int (*stop)(struct machine *vmm, struct error *err);
	/* Writes the saved state to fd; *cpu is what it requires of a CPU, a new reference. */
	int (*save)(struct machine *vmm, int fd, json_t **cpu, struct error *err);
	int (*load)(struct machine *vmm, int fd, const char *clock, struct error *err);
	/* The bitmap: a bit for each 4 KiB of the memfd. All pages count as written at first. */
	int (*dirty_start)(struct machine *vmm, int bitmap, struct error *err);
	int (*dirty_collect)(struct machine *vmm, uint64_t first, uint64_t pages,
			     struct error *err);
	int (*dirty_stop)(struct machine *vmm, struct error *err);
	/*
	 * How many accesses to memory of each of n vCPUs had to be handled so far; while writes are
	 * tracked most are first writes to a page. -ENOTSUP: nobody counts.
	 */
	int (*faults)(struct machine *vmm, unsigned n, uint64_t *ret, struct error *err);
	/* Keeps each of n vCPUs out of the guest for a share of the time; all 0 ends it. */
	int (*throttle)(struct machine *vmm, unsigned n, const uint8_t *percent, struct error *err);
	/* Memory that comes later (mover/faults.h). take and end: though the VMM answers nobody. */
	int (*faults_open)(struct machine *vmm, unsigned hold_ms, struct faults *ret,
			   struct error *err);
	int (*faults_take)(struct machine *vmm, struct faults *ret, struct vmm_memory *memory,
			   struct error *err);
	int (*faults_end)(struct machine *vmm, const char *reason, struct error *err);
	int (*faults_stop)(struct machine *vmm, struct error *err);
	/* A call that another thread waits in ends with -ENOTCONN, as all do from now on. */
	void (*hang_up)(struct machine *vmm);
	void (*close)(struct machine *vmm);
};

struct machine {
	const struct machine_ops *ops;
};

/*
 * The VMM behind a control socket; ended by its close(). With may_be_dead, one that does not
 * answer is taken as well: all it says is -ENOTCONN.
 */
int machine_connect(const char *path, bool may_be_dead, struct machine **ret, struct error *err);

#endif
