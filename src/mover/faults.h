/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_FAULTS_H
#define WISP_MOVER_FAULTS_H

/*
 * Memory of a VMM that is not there yet (docs/formats/control.md, `userfault`): who touches it is
 * told of, and waits until it is given. Pages are those of the memfd, 4 KiB each. What is not said
 * to belong to one thread may be called by any.
 *
 * Huge pages are given otherwise: such a unit is in the memfd from the begin, but not shown to the
 * VM. Who brings it fills all of it there, and then shows it (faults_show()).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mover/vmm.h"

struct error;

#define FAULTS_REGIONS 8
#define FAULTS_THREADS 4096
#define FAULTS_NAME 96
#define FAULTS_UNIT_MAX (2u << 20) /* bytes: nobody waits for more */

struct faults {
	int fd; /* userfaultfd, owned */
	struct {
		uint64_t host, size, offset; /* in the VMM, and in the memfd */
	} region[FAULTS_REGIONS];
	unsigned nregions;
	int *thread; /* of each vCPU */
	unsigned nthreads;
	unsigned unit;	  /* pages that are given at once: 1, or those of a huge page */
	uint64_t *mapped; /* of faults_take(), of huge pages: a bit for each that is shown */
	char instance[FAULTS_NAME]; /* of faults_take(): which VMM it is */
	struct vmm keeper; /* of faults_take(): the VMM waits for the end of this connection */
};

/* -EOPNOTSUPP: memory of such pages cannot come later; says why, and what to do. */
int faults_check_page_size(uint64_t page_size, struct error *err);

/*
 * Registers all memory. When the connection ends the VMM waits hold_ms for another mover, then it
 * ends. Until faults_close() the memory is only missing for this call's caller: faults are to be
 * served (and vmm is not to be waited for by the thread that does).
 */
int faults_open(struct vmm *vmm, unsigned hold_ms, struct faults *ret, struct error *err);

/*
 * Takes a VMM's faults over whose mover is gone; *memory, when not NULL, is its memory. -ENOENT:
 * it waits for nobody.
 */
int faults_take(const char *control, struct faults *ret, struct vmm_memory *memory,
		struct error *err);

/* The rest will not come: the VMM ends, and writes the reason to its log. */
int faults_end(const char *control, const char *reason, struct error *err);

/* Accepts a zeroed one, or one that is closed. */
void faults_close(struct faults *f);

struct fault {
	uint64_t page;
	int thread; /* as the VMM's kernel counts them; 0: unknown */
};

/*
 * Waits for faults, or for stop_fd to be readable: 0. Else how many there are (at most n), or
 * -errno. One thread.
 */
int faults_wait(const struct faults *f, int stop_fd, struct fault *ret, unsigned n,
		struct error *err);

/*
 * Gives n pages, each whole at once, and wakes who waits for them. A page that is there stays as it
 * is. -ESRCH: the VMM is gone.
 */
int faults_copy(const struct faults *f, uint64_t page, uint64_t n, const void *data,
		struct error *err);
int faults_zero(const struct faults *f, uint64_t page, struct error *err);
/* Shows n pages, whole units that have been filled; one that is shown already stays as it is. */
int faults_show(const struct faults *f, uint64_t page, uint64_t n, struct error *err);
/* Wakes who waits for a page that is there. */
void faults_wake(const struct faults *f, uint64_t page);
/* Everybody who waits: what is missing still is told of again. */
void faults_wake_all(const struct faults *f);

/* Makes the pages of the set (a bit a page; NULL: all) missing, for certain. Not of huge pages. */
int faults_discard(int memfd, uint64_t size, const uint64_t *set, struct error *err);

/* Sets the bits of the pages that are there, and clears the others. Not of huge pages. */
int faults_there(int memfd, uint64_t size, uint64_t *set, struct error *err);

/* Whether a huge page, by its number, was shown by a mover before us. */
bool faults_was_shown(const struct faults *f, uint64_t number);

#endif
