/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_FOOTPRINT_H
#define WISP_VMS_FOOTPRINT_H

/* What a wisp-vmm costs beside its guest's memory, from /proc/PID/smaps (proc(5)). */

#include <stdint.h>
#include <sys/types.h>

struct error;

/* Bytes. */
struct footprint {
	uint64_t guest;	    /* guest memory that is populated */
	uint64_t anonymous; /* the process's own pages: heap, stacks, written data */
	uint64_t file;	    /* pages of its program and libraries, shared with others */
};

int footprint_read(pid_t pid, struct footprint *ret, struct error *err);

/* The same of a text in the format of smaps. */
void footprint_parse(char *smaps, struct footprint *ret);

#endif
