/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_BEGIN_H
#define WISP_PART_BEGIN_H

/* How one VM begins, in an errand of its own. Blocks. */

#include <jansson.h>

#include "image/image.h"
#include "part/part.h"

/* What such an errand has. */
struct begin {
	const struct part *part;
	const struct setup_vm *vm;
	const json_t *request;
	json_t *spec; /* the VM's description */
};

/*
 * An errand for a work: everything that can be refused before a VM begins, and the names for the
 * network. *ret: the descriptions of the work's VMs.
 */
int begin_prepare(int talk, void *work, json_t **ret, struct error *err);

/*
 * part-image.c: image_admit() for VMs of this part. An image that is named with its digest may have
 * come here under another name.
 */
int begin_admit(const struct part *part, const char *reference, struct image *ret,
		struct error *err);

/* Starts it as its description says, and waits until its VMM takes commands: *config, new. */
int begin_vm(const struct begin *begin, json_t **config, struct error *err);

/* part-restore.c: an errand; an empty VM, and into it what a checkpoint has. It stays paused. */
int restore_one(int talk, void *begin, json_t **ret, struct error *err);

#endif
