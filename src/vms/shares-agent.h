/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_SHARES_AGENT_H
#define WISP_VMS_SHARES_AGENT_H

/*
 * The shares of a VM as its agent sees them: mounted, or let go so that the VM can be saved. dir is
 * its state directory, config what is recorded of it. Both wait for the agent, 10 s at most, and do
 * nothing for a VM without shares. Any thread.
 */

#include <jansson.h>

struct error;

int shares_attach(const char *dir, const json_t *config, struct error *err);

/* -EBUSY: one is in use, and all that was unmounted is mounted again. */
int shares_detach(const char *dir, const json_t *config, struct error *err);

#endif
