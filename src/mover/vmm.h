/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_VMM_H
#define WISP_MOVER_VMM_H

/*
 * A connection to the control socket of a VMM (docs/formats/control.md). What the VMM does for us
 * (a held pause, tracking of writes) ends with it, so a mover that dies leaves a VM that runs.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/jsonline.h"

struct error;

struct vmm {
	int fd;
	struct jsonline line;
	bool lost; /* a command was not answered: done or not, nobody knows */
};

/* The guest's RAM. */
struct vmm_memory {
	int fd; /* the memfd; the caller closes it */
	uint64_t size, page_size;
};

int vmm_connect(const char *path, struct vmm *ret, struct error *err);
void vmm_close(struct vmm *vmm);

/*
 * Sends a command. args (NULL: none) is taken over; the VMM gets the descriptor pass (-1:
 * none). Returns 0 and, when ret is not NULL, a new reference to the result; -errno as the VMM
 * gives it when it refuses, with its reason.
 */
int vmm_call(struct vmm *vmm, const char *command, json_t *args, int pass, json_t **ret,
	     struct error *err);

int vmm_memory(struct vmm *vmm, struct vmm_memory *ret, struct error *err);

#endif
