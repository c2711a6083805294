/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_INITRD_H
#define WISP_IMAGE_INITRD_H

/*
 * The initrd of a guest or of a lab node: the agent as /init and the kernel modules it loads
 * first (docs/formats/image.md). The same input gives the same bytes.
 */

#include <stdbool.h>

struct error;

struct initrd {
	const char *modules;	  /* folder lib/modules/RELEASE */
	const char *const *names; /* modules wanted, ended by NULL; what they need is added */
	const char *agent;	  /* the static wisp-agent */
	const char *rsh;	  /* wisp-rsh, for the agent to put into the root; or NULL */
	bool lz4;		  /* compressed by lz4 */
};

/* Writes the initrd to output (replaced at once, when whole). 0 or -errno. Any thread. */
int initrd_build(const struct initrd *initrd, const char *output, struct error *err);

#endif
