/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_SHARES_AGENT_H
#define WISP_VMS_SHARES_AGENT_H

/*
 * The shares and volumes of a VM as its agent sees them: mounted, shares also let go so that the VM
 * can be saved. dir is its state directory, config what is recorded of it. All wait for the agent,
 * 10 s at most, and do nothing for a VM without them. Any thread.
 */

#include <jansson.h>

struct error;

int shares_attach(const char *dir, const json_t *config, struct error *err);

/* -EBUSY: one is in use, and all that was unmounted is mounted again. */
int shares_detach(const char *dir, const json_t *config, struct error *err);

/* Mounts the disks that have a place in its tree; those that are there stay. */
int volumes_attach(const char *dir, const json_t *config, struct error *err);

#endif
