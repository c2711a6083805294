/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_HANDOVER_H
#define WISP_VMS_HANDOVER_H

/*
 * What wisp-mover has recorded of a hand-over in a VM's state directory, and nobody has brought to
 * its end (docs/formats/migration.md). It outlives the VM: the other side may wait for an answer.
 */

struct error;

/* The more, the less may be done with the VM. */
enum hand_over {
	HAND_OVER_NONE,
	HAND_OVER_STAYED,    /* it has stayed here, and where it was to go may not know */
	HAND_OVER_CAME,	     /* it came, and where it comes from may not know */
	HAND_OVER_GIVEN_UP,  /* it never runs here, and where it comes from may not know */
	HAND_OVER_RECEIVING, /* it may run where it comes from, or never here */
	HAND_OVER_SENDING,   /* it may run at the other place */
	/* From these on: the directory is needed; the VM itself is to be left alone. */
	HAND_OVER_UNTOLD = HAND_OVER_CAME,
	HAND_OVER_UNDECIDED = HAND_OVER_GIVEN_UP,
};

/* The most of what is open. */
enum hand_over hand_over_look(const char *dir);

/*
 * -EBUSY when at least so much is open, with how to go on; instead is what else can be done. 0
 * else.
 */
int hand_over_check(const char *name, const char *dir, enum hand_over least, const char *instead,
		    struct error *err);

#endif
