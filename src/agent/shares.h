/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_SHARES_H
#define WISP_AGENT_SHARES_H

/* Folders of the host (virtio-fs) in this machine: mounted and let go by request. */

#include <jansson.h>

struct error;

/*
 * wanted: [{"tag", "target", "readonly"}], all that are to be mounted. *mounted is what an earlier
 * call left there (NULL at first), and is replaced. Those that are not wanted any more are
 * unmounted; when none is left the driver lets go of all devices, which the VM needs to be saved.
 * -EBUSY: one is in use, and stays.
 */
int shares_set(const json_t *wanted, json_t **mounted, struct error *err);

#endif
