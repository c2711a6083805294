/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ISOLATE_H
#define WISP_NODE_ISOLATE_H

/* What else keeps others off dedicated cores: interrupts elsewhere, core scheduling. One thread. */

#include <sched.h>
#include <sys/types.h>

struct error;

struct isolate_interrupts {
	unsigned moved, back; /* changed now: off dedicated CPUs, and to where they were at first */
	unsigned refused;     /* the kernel does not let them go (of one CPU each, or its own) */
	unsigned first;	      /* the first of those */
};

/*
 * Brings the machine's interrupts off the dedicated CPUs and those back that are on no dedicated
 * CPU any more; called whenever that set has changed, also with an empty one, and by a new daemon.
 * state is a file that tells where they were: it has to go with a reboot (/run) and is there only
 * while some are elsewhere. root is that of /proc. 0 also when some refuse.
 */
int isolate_interrupts(const char *root, const char *state, const cpu_set_t *online,
		       const cpu_set_t *dedicated, struct isolate_interrupts *ret,
		       struct error *err);

/*
 * The threads of a process share a core with each other only, those it has now and will have.
 * -EOPNOTSUPP: the kernel has no core scheduling; -ENODEV: its cores have one thread, nothing is to
 * be done.
 */
int isolate_cookie(pid_t pid, struct error *err);

#endif
